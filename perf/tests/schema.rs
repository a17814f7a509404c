//! Every kind of report is as `schema/report-1.json` documents it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::{Server, quick, schema};

#[test]
fn reports_of_every_command_are_as_documented() {
    let server = Server::start();
    let runs: [&[&str]; 7] = [
        &["local", "--link", "tcp", "bw", "--size", "100,1M"],
        &["local", "--link", "tcp", "lat", "--verify"],
        &["local", "--link", "tcp", "rate"],
        &["client", &server.address, "bw", "--size", "64K"],
        &["client", &server.address, "lat", "--size", "64,128K"],
        &["client", &server.address, "rate"],
        &["bare-tcp"],
    ];
    for arguments in runs {
        let ran = quick(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.errors);
        let json = ran.json();
        assert_eq!(json["transport"], "tcp", "{arguments:?}");
        assert!(json["mtu_bytes"].as_u64() > Some(0), "{json}");
        assert!(json["command"].as_str().unwrap().starts_with(arguments[0]));
    }
}

#[test]
fn reports_without_a_link_are_as_documented() {
    for arguments in [["pool", "--size", "64,1M"], ["device", "--size", "64K,1M"]] {
        let mut all = arguments.to_vec();
        all.extend(["--time", "0.05", "--json", "-"]);
        let ran = common::run(&all);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.errors);
        let json = ran.json();
        assert_eq!(
            (&json["transport"], &json["mtu_bytes"]),
            (&"none".into(), &0.into())
        );
        assert!(json["results"].as_array().unwrap().len() >= 4, "{json}");
        let is_device = arguments[0] == "device";
        let told = json["warnings"].to_string();
        let clock = told.contains("are the clock's") || told.contains("in steps of");
        assert_eq!(clock, !is_device, "{json}");
        let receptions = json["receptions"].as_array();
        assert_eq!(
            receptions.map_or(0, Vec::len),
            if is_device { 2 } else { 0 }
        );
        for one in receptions.into_iter().flatten() {
            let of = |way: &str| one[way]["gbit_per_s"].as_f64().unwrap();
            assert!(of("staged") > 0.0 && of("direct") > 0.0, "{one}");
            let ratio = one["direct_over_staged"].as_f64().unwrap();
            assert!((ratio - of("direct") / of("staged")).abs() < 1e-9, "{one}");
        }
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let good = quick(&["local", "--link", "tcp", "lat"]).json();
    type Change = dyn Fn(&mut serde_json::Value);
    let broken = |change: &Change| {
        let mut report = good.clone();
        change(&mut report);
        schema::failures(&report)
    };
    assert!(broken(&|_| {}).is_empty());
    let wrong: [(&str, &Change); 6] = [
        ("has no mtu_bytes", &|report| {
            report.as_object_mut().unwrap().remove("mtu_bytes");
        }),
        ("is not documented", &|report| report["extra"] = 1.into()),
        ("schema_version", &|report| {
            report["schema_version"] = 2.into()
        }),
        ("transport", &|report| report["transport"] = "pigeon".into()),
        ("p999", &|report| {
            report["results"][0]["latency_us"]["p999"] = "1".into()
        }),
        ("transfers", &|report| {
            report["results"][0]["transfers"] = 0.into()
        }),
    ];
    for (part, change) in wrong {
        let failures = broken(change);
        assert!(
            failures.iter().any(|one| one.contains(part)),
            "{part}: {failures:?}"
        );
    }
}
