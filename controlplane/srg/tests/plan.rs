//! The plan's schema in both encodings.

use genie_srg::{
    Caching, Launch, Lifetime, Place, Plan, SCHEMA_VERSION, Sequence, Step, Transfer, Workload,
    WorkloadClass, step::Action,
};
use prost::Message;

fn plan() -> Plan {
    let place = |machine: &str| {
        Some(Place {
            machine: machine.into(),
            device: 1,
        })
    };
    let launch = Launch {
        position: 3,
        device: 1,
        inputs: vec![0, 1],
        outputs: vec![2],
    };
    let transfer = Transfer {
        slot: 2,
        from: place("a"),
        to: place("b"),
        bytes_expected: 1 << 40,
        priority: -1,
    };
    let step = |action, after| Step {
        action: Some(action),
        after,
    };
    let lifetime = |last_step| Lifetime {
        slot: 2,
        first_step: 0,
        last_step,
        caching: Caching::Keep.into(),
    };
    Plan {
        schema_version: Some(SCHEMA_VERSION),
        id: u64::MAX,
        fingerprint: vec![7; 16],
        sequences: vec![Sequence {
            machine: "a".into(),
            steps: vec![
                step(Action::Launch(launch), vec![]),
                step(Action::Transfer(transfer), vec![0]),
            ],
            lifetimes: vec![lifetime(Some(0)), lifetime(None)],
        }],
        workload: Some(Workload {
            class: WorkloadClass::LlmDecode.into(),
            confidence: 0.1,
        }),
        warnings: vec!["low confidence".into()],
    }
}

#[test]
fn plan_survives_protobuf() {
    assert_eq!(Plan::decode(plan().encode_to_vec().as_slice()), Ok(plan()));
}

#[test]
fn plan_survives_json() {
    let text = serde_json::to_string(&plan()).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("a plan"), plan());
}
