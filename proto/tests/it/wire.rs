//! What crosses the wire does not drift: every call, field and value of an enum by name, and bytes of every message, frozen in
//! `golden/wire.txt`.
//!
//! Programs one version apart talk to each other, so nothing that is frozen may go or mean something else; there may only be
//! more. `UPDATE=1 cargo test -p fettle-proto wire` adds the lines that are missing, and takes out none: bytes of before a field
//! was there stay, as what an older version says.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fettle_proto::signed::{Tag, digest};
use fettle_proto::v1;
use prost::{DecodeError, Message as _};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, MethodDescriptor, OneofDescriptor, Value,
};

use crate::golden;

/// Reads bytes as the program does, and writes what it read.
type Through = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

fn through<T: prost::Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    T::decode(bytes).map(|message| message.encode_to_vec())
}

macro_rules! messages {
    ($($name:ident)*) => {
        [$((concat!("fettle.v1.", stringify!($name)), through::<v1::$name> as Through)),*]
    };
}

fn program() -> HashMap<&'static str, Through> {
    messages! {
        // trust.proto
        Envelope Grant Signed
        // agents.proto
        Accepted Ack Cancel Cancelled Diagnose Drain EnrolDone EnrolOpen EnrolReply EnrolRequest EnrolSpend FromAgent GateReached
        Goodbye Heartbeat Hello Kept Order OrderContent OutputChunk OutputReply Pause Paused PausedRun Planned Refused Remediate
        RenewReply RenewRequest Report Reports RosterUpdate SegmentDone SegmentEnded SegmentFailed SegmentStopped SegmentUnknown
        StepEnded StepSkipped StepStarted ToAgent ToldAgain TrustBundle Verify Welcome
        // operators.proto
        Agent CancelRunRequest Clock Clocks CreateTokenReply CreateTokenRequest DecideReply DecideRequest Decision Evidence
        ExplainSignalRequest FollowUp Gate GatePlan GetAgentRequest GetGateRequest GetIncidentRequest GetLogsReply GetLogsRequest
        GetRosterRequest GetRunRequest GetRunbookRequest GetStatusRequest Happened HostRun Incident ListAgentsReply
        ListAgentsRequest ListGatesReply ListGatesRequest ListIncidentsReply ListIncidentsRequest ListRunbooksReply
        ListRunbooksRequest ListRunsReply ListRunsRequest ListSignalsReply ListSignalsRequest LoginOpen LoginReply LoginRequest
        LoginSession PauseRunRequest PauseView ResolveStepRequest ResumeRunRequest RevokeAgentReply RevokeAgentRequest Roster Run
        RunEvent Runbook Seen Signal StartRunReply StartRunRequest Status StepLog StepView TestSignalReply TestSignalRequest
        TimelineEntry Tried Verdict WatchRunRequest WhoAmIReply WhoAmIRequest
    }
    .into()
}

fn described() -> DescriptorPool {
    let here = env!("CARGO_MANIFEST_DIR");
    let files = ["fettle/v1/trust.proto", "fettle/v1/agents.proto", "fettle/v1/operators.proto"];
    let files = protox::compile(files, [here]).expect("they compile");
    DescriptorPool::from_file_descriptor_set(files).expect("they describe messages")
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|message| !message.is_map_entry())
}

// --- what there is, by name ---

fn names(pool: &DescriptorPool) -> BTreeSet<String> {
    let fields = messages(pool).flat_map(|message| message.fields().map(field_line).collect::<Vec<_>>());
    let values = pool.all_enums().flat_map(|of| value_lines(&of));
    let calls = pool.services().flat_map(|service| service.methods().map(call_line).collect::<Vec<_>>());
    fields.chain(values).chain(calls).collect()
}

fn field_line(field: FieldDescriptor) -> String {
    let how = match (field.containing_oneof(), field.cardinality()) {
        _ if field.is_map() => " map".to_owned(),
        (Some(of), _) if of.is_synthetic() => " optional".to_owned(),
        (Some(of), _) => format!(" one of {}", of.name()),
        (None, Cardinality::Repeated) => " repeated".to_owned(),
        (None, Cardinality::Optional | Cardinality::Required) => String::new(),
    };
    let message = field.parent_message().full_name();
    format!("field {message} {} {} {:?}{how}", field.number(), field.name(), field.kind())
}

fn value_lines(of: &EnumDescriptor) -> Vec<String> {
    of.values().map(|value| format!("value {} {} {}", of.full_name(), value.number(), value.name())).collect()
}

fn call_line(method: MethodDescriptor) -> String {
    let stream = |is| if is { "stream " } else { "" };
    format!(
        "call {} {}{} gives {}{}",
        method.full_name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name()
    )
}

// --- a message with all that it can have ---

/// So many instances show each member of its oneofs, each value of its enums, and what is optional as a zero too.
fn instances(message: &MessageDescriptor) -> usize {
    let members = message.oneofs().map(|of| if of.is_synthetic() { 2 } else { of.fields().len() });
    let values = message.fields().filter_map(|field| field.kind().as_enum().map(|of| of.values().len() - 1));
    members.chain(values).max().unwrap_or(1)
}

fn filled(message: &MessageDescriptor, instance: usize) -> DynamicMessage {
    let member = |of: &OneofDescriptor| of.fields().nth(instance).or_else(|| of.fields().next());
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if field.containing_oneof().is_none_or(|of| of.is_synthetic() || member(&of).as_ref() == Some(&field))
        {
            filled.set_field(&field, values(&field, instance));
        }
    }
    filled
}

fn values(field: &FieldDescriptor, instance: usize) -> Value {
    let kind = field.kind();
    match kind.as_message() {
        Some(entry) if field.is_map() => {
            let value = value(&entry.map_entry_value_field(), 0);
            Value::Map([(MapKey::String("key".to_owned()), value)].into())
        }
        Some(_) if field.is_list() => Value::List(vec![value(field, instance)]),
        None if field.is_list() => Value::List(vec![value(field, instance); 2]),
        _ if instance == 1 && field.containing_oneof().is_some_and(|of| of.is_synthetic()) => {
            Value::default_value(&kind)
        }
        _ => value(field, instance),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the messages have none of the others")]
fn value(field: &FieldDescriptor, instance: usize) -> Value {
    match field.kind() {
        Kind::String => Value::String(field.name().to_owned()),
        // No text, so that bytes never become one.
        Kind::Bytes => Value::Bytes([field.name().as_bytes(), &[0xff]].concat().into()),
        Kind::Bool => Value::Bool(true),
        Kind::Uint32 => Value::U32(u32::MAX),
        Kind::Uint64 => Value::U64(u64::MAX),
        Kind::Int32 => Value::I32(i32::MIN),
        Kind::Int64 => Value::I64(i64::MIN),
        Kind::Enum(of) => {
            let value = of.values().nth(instance + 1).or_else(|| of.values().nth(1));
            Value::EnumNumber(value.expect("an enum has more than its zero").number())
        }
        Kind::Message(of) => Value::Message(filled(&of, 0)),
        other => panic!("{}: say here what a field of kind {other:?} is filled with", field.full_name()),
    }
}

/// Every message with all that it can have, as the program writes it.
fn bytes(pool: &DescriptorPool, program: &HashMap<&str, Through>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for message in messages(pool) {
        let name = message.full_name();
        let through = program.get(name).unwrap_or_else(|| panic!("{name}: add it to the list of messages"));
        for instance in 0..instances(&message) {
            let all = filled(&message, instance);
            let written = through(&all.encode_to_vec()).unwrap_or_else(|why| panic!("{name}: {why}"));
            let read = DynamicMessage::decode(message.clone(), written.as_slice());
            assert!(
                read == Ok(all),
                "{name}: the program reads or writes it otherwise than the .proto file says"
            );
            lines.insert(format!("bytes {name} {}", STANDARD.encode(written)));
        }
    }
    lines
}

// --- what is frozen ---

fn frozen() -> String {
    std::fs::read_to_string(golden::file("wire.txt")).expect("the golden file")
}

/// The frozen bytes, each with its message.
fn frozen_bytes(frozen: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    let lines = frozen.lines().filter_map(|line| line.strip_prefix("bytes "));
    lines.map(|line| {
        let (name, bytes) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name, STANDARD.decode(bytes).unwrap_or_else(|why| panic!("{line}: {why}")))
    })
}

#[test]
fn every_message_with_all_that_it_can_have_is_written_as_it_is_frozen() {
    let pool = described();
    let now: BTreeSet<String> = names(&pool).into_iter().chain(bytes(&pool, &program())).collect();
    if std::env::var_os("UPDATE").is_some() {
        let before = std::fs::read_to_string(golden::file("wire.txt")).unwrap_or_default();
        let all: BTreeSet<&str> = before.lines().chain(now.iter().map(String::as_str)).collect();
        let all: String = all.into_iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(golden::file("wire.txt"), all).expect("writes the golden file");
    }
    let frozen = frozen();
    let frozen: BTreeSet<&str> = frozen.lines().collect();
    let missing: Vec<&String> = now.iter().filter(|line| !frozen.contains(line.as_str())).collect();
    assert!(
        missing.is_empty(),
        "not in golden/wire.txt. If something is new, freeze it: UPDATE=1 cargo test -p fettle-proto wire. If nothing is, what is \
         written has changed, and programs one version apart would not understand each other: {missing:#?}"
    );
}

#[test]
fn nothing_that_is_frozen_has_gone_or_means_something_else() {
    let now = names(&described());
    let frozen = frozen();
    let gone: Vec<&str> =
        frozen.lines().filter(|line| !line.starts_with("bytes ") && !now.contains(*line)).collect();
    assert!(gone.is_empty(), "programs one version apart still say it: {gone:#?}");
}

#[test]
fn frozen_bytes_are_read_and_nothing_of_them_is_lost() {
    let program = program();
    for (name, bytes) in frozen_bytes(&frozen()) {
        let through = program.get(name).unwrap_or_else(|| panic!("{name} has gone; it is still said"));
        let written =
            through(&bytes).unwrap_or_else(|why| panic!("{name} {}: {why}", STANDARD.encode(&bytes)));
        assert_eq!(STANDARD.encode(written), STANDARD.encode(bytes), "{name}");
    }
}

#[test]
fn an_order_has_the_digest_that_it_has_always_had() {
    let frozen = frozen();
    let orders = frozen_bytes(&frozen).filter(|(name, _)| *name == "fettle.v1.OrderContent");
    let digests: BTreeSet<String> = orders
        .map(|(_, bytes)| {
            let order = v1::OrderContent::decode(bytes.as_slice()).expect("an order");
            format!("{}\n", digest(Tag::Order, &order.encode_to_vec()))
        })
        .collect();
    assert!(digests.len() >= 3, "to diagnose, to remediate, to verify: {digests:?}");
    golden::pinned("order.digest", digests.into_iter().collect::<String>().as_bytes());
}
