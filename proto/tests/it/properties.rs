//! For all bytes: readers never panic, what is written is read back, and one changed byte is noticed.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use fettle_proto::convert::Kept;
use fettle_proto::grant::Grant;
use fettle_proto::signed::json::{self, Json, Members, Writer};
use fettle_proto::signed::{
    self, Approval, Certificate, Envelope, Leaf, Login, PublicKey, Request, Roster, Signed, Start, Trust,
    certificate, sign, verify,
};
use fettle_proto::v1;
use fettle_runbooks::plan::{Plan, PlannedUndo, PlannedWork};
use fettle_runbooks::unit::{UnitName, Verb};
use proptest::prelude::*;

use crate::world;

/// Reads bytes as every format; whatever is understood must be written back as the same bytes.
fn read_as_everything(bytes: &[u8]) -> usize {
    let mut understood = 0;
    let mut same = |again: Option<Vec<u8>>| {
        if let Some(again) = again {
            understood += 1;
            let reread = json::parse(&again).expect("what we write is what we read");
            assert_eq!(sorted(reread), sorted(json::parse(bytes).expect("it was read once")));
        }
    };
    same(Trust::decode(bytes).ok().map(|it| it.encode()));
    same(Roster::decode(bytes).ok().map(|it| it.encode()));
    same(Certificate::decode(bytes).ok().map(|it| it.encode()));
    same(Login::decode(bytes).ok().map(|it| it.encode()));
    same(Start::decode(bytes).ok().map(|it| it.encode()));
    same(Leaf::decode(bytes).ok().map(|it| it.encode()));
    same(signed::plan::decode(bytes).ok().map(|it| signed::plan::encode(&it)));
    same(Request::decode(bytes).ok().map(|it| it.encode()));
    same(Approval::decode(bytes).ok().map(|it| it.encode()));
    let _ = certificate::decode_file(bytes);
    let _ = certificate::decode_signed_file(bytes);
    understood
}

/// Members and sets in one order, for comparison only; the text of a key may have had a comment.
fn sorted(value: Json) -> Json {
    match value {
        Json::Text(text) if text.starts_with("ssh-") || text.starts_with("ecdsa-") => {
            Json::Text(text.split(' ').take(2).collect::<Vec<_>>().join(" "))
        }
        Json::Text(text) => Json::Text(text),
        Json::List(items) => {
            let mut items: Vec<Json> = items.into_iter().map(sorted).collect();
            items.sort_by_key(|item| format!("{item:?}"));
            items.dedup();
            Json::List(items)
        }
        Json::Object(members) => {
            let mut members: Vec<_> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(members)
        }
    }
}

#[test]
fn a_key_has_one_spelling() {
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY ana@laptop";
    assert!(PublicKey::parse(line).is_ok());
    // A length of 33 before 32 bytes.
    assert!(PublicKey::parse(&line.replace("AAAAIG0X", "AAAAIW0X")).is_err());
}

#[test]
fn every_format_is_read_back_as_what_was_written() {
    for (name, bytes, _, _) in world::formats() {
        assert_eq!(read_as_everything(&bytes), 1, "{name} is one format and no other");
    }
    assert_eq!(signed::plan::decode(&signed::plan::encode(&world::plan())), Ok(world::plan()));
    assert_eq!(Roster::decode(&world::roster().encode()), Ok(world::roster()));
    assert_eq!(Request::decode(&world::request().encode()), Ok(world::request()));
    assert_eq!(Start::decode(&world::start().encode()), Ok(world::start()));
}

#[test]
fn any_one_changed_byte_of_signed_bytes_fails_verification() {
    for (name, bytes, _, signer) in world::formats() {
        let Some((namespace, by)) = signer else { continue };
        let key = world::key_of(by);
        let signed = sign(&key, namespace, &bytes).expect("signs");
        let keys = [key.public()];
        verify(&signed, namespace, &keys).expect("whole");
        // Places all over it, the bit wanders. (A test that takes every place is exact, and a minute long.)
        let stride = (bytes.len() / 48) | 1;
        for place in (0..bytes.len()).step_by(stride) {
            let mut changed = signed.clone();
            changed.bytes[place] ^= 1 << (place % 8);
            assert!(verify(&changed, namespace, &keys).is_err(), "{name}: byte {place} changed unnoticed");
        }
        for cut in [0, bytes.len() / 2, bytes.len() - 1] {
            let shorter = Signed { bytes: bytes[..cut].to_vec(), ..signed.clone() };
            assert!(verify(&shorter, namespace, &keys).is_err(), "{name}: cut at {cut} unnoticed");
        }
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let good = world::login().encode();
    let text = String::from_utf8(good).expect("text");
    let spoilt = [
        text.replacen("{\"fettle\"", "{ \"fettle\"", 1),
        text.replacen("\"person\":\"ana\"", "\"person\":\"ana\",\"person\":\"ben\"", 1),
        text.replacen("\"person\":\"ana\"", "\"person\":\"ana\",\"admin\":\"yes\"", 1),
        text.replacen("\"person\":\"ana\",", "", 1),
        text.replacen("\"person\":\"ana\"", "\"person\":7", 1),
        text.replacen("\"person\":\"ana\"", "\"person\":null", 1),
        text.replacen("\"person\":\"ana\"", "\"person\":[\"ana\"]", 1),
        text.replacen("\"fettle\":\"login/1\"", "\"fettle\":\"login/2\"", 1),
        text.replacen("2026-11-21T18:06:00Z", "2026-11-21T20:06:00+02:00", 1),
        text.replacen("\"ana\"", "\"a\\u0000\"", 1),
        text.replacen("\"ana\"", "\"a\\ud800\"", 1),
        text.replacen("\"ana\"", "\"a\nb\"", 1),
        format!("{text}\n"),
        format!("{text}{text}"),
        String::new(),
        "[".repeat(100_000),
    ];
    for text in spoilt {
        let shown: String = text.chars().take(120).collect();
        assert!(Login::decode(text.as_bytes()).is_err(), "was read: {shown}");
    }
    assert!(json::parse(&vec![b'['; json::LIMIT + 1]).is_err(), "larger than anyone reads");
}

fn any_signed() -> impl Strategy<Value = Signed> {
    let envelope = prop_oneof![
        any::<String>().prop_map(Envelope::SshSig),
        any::<Vec<u8>>().prop_map(Envelope::WebAuthn)
    ];
    (any::<Vec<u8>>(), envelope).prop_map(|(bytes, envelope)| Signed { bytes, envelope })
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(any::<String>(), any::<String>(), 0..6)
}

fn any_json() -> impl Strategy<Value = Json> {
    any::<String>().prop_map(Json::Text).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn readers_never_panic_on_any_bytes(bytes in any::<Vec<u8>>()) {
        read_as_everything(&bytes);
    }

    #[test]
    fn readers_never_panic_on_damaged_objects(which in 0usize..14, place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = world::formats().swap_remove(which).1;
        let at = place.index(bytes.len());
        bytes[at] = byte;
        read_as_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_as_everything(&bytes);
    }

    #[test]
    fn verifying_never_panics(signed in any_signed(), armor in any::<Vec<u8>>()) {
        use signed::Namespace::Approval as Ns;
        static KEYS: LazyLock<[PublicKey; 1]> = LazyLock::new(|| [world::key_of("ana").public()]);
        let keys = &*KEYS;
        prop_assert!(verify(&signed, Ns, keys).is_err());
        let armored = format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", String::from_utf8_lossy(&armor));
        let signed = Signed { bytes: vec![], envelope: Envelope::SshSig(armored) };
        prop_assert!(verify(&signed, Ns, keys).is_err());
    }

    #[test]
    fn any_text_survives_being_written_and_read(name in any::<String>(), value in any::<String>(), map in texts(), list in proptest::collection::vec(any::<String>(), 0..6)) {
        prop_assume!(name != "fettle" && name != "map" && name != "list" && name != "value");
        let bytes = Writer::format("some/1").text("value", &value).map("map", &map).texts("list", &list).end();
        let mut members = Members::open(&bytes, "some/1").expect("reads");
        prop_assert_eq!(members.text("value").expect("value"), value);
        prop_assert_eq!(members.map("map").expect("map"), map);
        prop_assert_eq!(members.texts("list").expect("list"), list);
        prop_assert!(members.end().is_ok());
    }

    #[test]
    fn our_reader_and_serde_agree_on_what_strict_text_says(value in any_json()) {
        fn to_serde(value: &Json) -> serde_json::Value {
            match value {
                Json::Text(text) => text.clone().into(),
                Json::List(items) => items.iter().map(to_serde).collect(),
                Json::Object(members) => {
                    members.iter().map(|(name, value)| (name.clone(), to_serde(value))).collect::<serde_json::Map<_, _>>().into()
                }
            }
        }
        let serde = to_serde(&value);
        let text = serde_json::to_vec(&serde).expect("writes");
        prop_assert_eq!(to_serde(&json::parse(&text).expect("reads")), serde);
    }

    #[test]
    fn plans_of_any_text_survive(text in any::<String>(), argv in proptest::collection::vec(any::<String>(), 0..6), env in texts(), ms in 0u64..u64::MAX / 2, times in any::<u32>()) {
        static PLAN: LazyLock<Plan> = LazyLock::new(world::plan);
        let mut plan = PLAN.clone();
        plan.steps[0].name = text.clone();
        plan.steps[0].work = PlannedWork::Argv(argv);
        plan.steps[0].env = env.clone();
        plan.steps[0].timeout = Duration::from_millis(ms);
        plan.steps[0].retry.times = times;
        plan.steps[0].undo = PlannedUndo::Work(PlannedWork::Script { source: text, interpreter: vec![] });
        plan.evidence = env;
        prop_assert_eq!(signed::plan::decode(&signed::plan::encode(&plan)), Ok(plan));
    }

    #[test]
    fn plans_of_any_unit_survive(verb in proptest::sample::select(Verb::ALL.to_vec()), unit in "[a-z0-9_:.\\\\@-]{1,40}", put_back in any::<bool>()) {
        static PLAN: LazyLock<Plan> = LazyLock::new(world::plan_with_units);
        let unit = unit.parse::<UnitName>().ok().filter(|unit| unit.acted_on().is_ok());
        prop_assume!(unit.is_some());
        let mut plan = PLAN.clone();
        plan.steps[0].work = PlannedWork::Service { verb, unit: unit.expect("assumed") };
        plan.steps[0].undo = if put_back { PlannedUndo::Previous } else { PlannedUndo::None };
        let read = signed::plan::decode(&signed::plan::encode(&plan));
        if put_back && verb == Verb::Reload {
            prop_assert!(read.is_err(), "after a reload there is nothing to put back");
        } else {
            prop_assert_eq!(read, Ok(plan));
        }
    }

    #[test]
    fn signed_survives_the_wire(signed in any_signed()) {
        prop_assert_eq!(Signed::try_from(v1::Signed::from(signed.clone())), Ok(signed));
    }

    #[test]
    fn a_grant_survives_the_wire(request in any::<Vec<u8>>(), approvals in proptest::collection::vec(any_signed(), 0..3), leaf_index in any::<u64>(), leaf_count in any::<u64>(), merkle_path in any::<Vec<[u8; 32]>>()) {
        let grant = Grant { request, approvals, leaf_index, leaf_count, merkle_path };
        prop_assert_eq!(Grant::try_from(v1::Grant::from(grant.clone())), Ok(grant));
    }

    #[test]
    fn kept_output_survives_the_wire(head in any::<Vec<u8>>(), tail in any::<Vec<u8>>(), dropped in any::<u64>()) {
        let kept = Kept { head, tail, dropped };
        prop_assert_eq!(Kept::from(v1::Kept::from(kept.clone())), kept);
    }

    #[test]
    fn ids_survive_the_wire(number in any::<u128>()) {
        let id = fettle_runbooks::id::RunId::new(uuid::Uuid::from_u128(number));
        prop_assert_eq!(fettle_proto::convert::id("Run", &id.to_string()), Ok(id));
    }
}

#[test]
fn a_plan_that_says_of_a_unit_what_no_step_does_is_refused() {
    let good = String::from_utf8(signed::plan::encode(&world::plan_with_units())).expect("it is text");
    assert_eq!(signed::plan::decode(good.as_bytes()), Ok(world::plan_with_units()));
    for (from, to) in [
        (r#""verb":"restart""#, r#""verb":"isolate""#),
        (r#""unit":"nginx.service""#, r#""unit":"nginx""#),
        (r#""unit":"nginx.service""#, r#""unit":"--now""#),
        (r#""unit":"nginx.service""#, r#""unit":"poweroff.target""#),
        (r#""verb":"restart","unit":"nginx.service""#, r#""verb":"restart""#),
        (
            r#""verb":"restart","unit":"nginx.service""#,
            r#""verb":"restart","unit":"nginx.service","mode":"isolate""#,
        ),
        (r#""verb":"restart","unit":"nginx.service""#, r#""verb":"reload","unit":"nginx.service""#),
        (r#""kind":"service","verb":"restart","unit":"nginx.service""#, r#""kind":"argv","argv":["nginx"]"#),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        signed::plan::decode(bad.as_bytes()).expect_err(to);
    }
}

#[test]
fn a_message_that_lacks_its_signature_or_has_half_a_hash_is_refused() {
    Signed::try_from(v1::Signed::default()).expect_err("no signature");
    let grant = v1::Grant { merkle_path: vec![vec![0; 31].into()], ..v1::Grant::default() };
    Grant::try_from(grant).expect_err("31 bytes");
}
