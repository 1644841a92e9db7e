//! Hosts under another's name.

use std::fs;

use fettle_tests::Cluster;

use super::raid::{Raid, remediate, strike};
use super::thief::Thief;

#[test]
fn a_host_is_who_it_joined_as_and_no_certificate_makes_it_another() {
    let mut cluster = Cluster::builder().agent("web-1").agent("web-2").start();
    // The certificate that the authority gave to web-2, in the place of web-1's: on the wire it would be web-2, and orders
    // for web-2, approved for web-2, would meet the disk of web-1.
    cluster.agent("web-1").kill();
    for file in ["cert.pem", "key.pem"] {
        let of = |host: &str| cluster.path(&format!("{host}/identity/{file}"));
        fs::copy(of("web-2"), of("web-1")).expect("the thief copies");
    }
    cluster.agent("web-2").kill();
    cluster.start_agent_alone("web-1");
    let thief = Thief::replaces(cluster, &[]);
    thief.log_has("web-1", "the certificate is not that of web-1");
    assert!(thief.hosts().is_empty(), "an agent spoke under another's name");
}

#[test]
fn an_order_for_another_host_is_refused_though_people_approved_it_there() {
    let thief =
        Thief::replaces(Cluster::builder().agent("web-1").agent("web-2").start(), &["web-1", "web-2"]);
    let theirs = Raid::of(&thief, "web-2", strike("high"));
    let plan_bytes = theirs.plan();
    let grant = theirs.grant(&theirs.request(&plan_bytes), &["ben"]);
    let here = theirs.on("web-1");
    let mut order = here.order(remediate(&plan_bytes, Some(grant.clone())));
    here.refused("plan-mismatch", &order);
    order.host = "web-2".to_owned();
    order.segment = 2;
    here.refused("order-host", &order);
    here.nothing_happened();
    theirs.strikes(remediate(&plan_bytes, Some(grant)));
}
