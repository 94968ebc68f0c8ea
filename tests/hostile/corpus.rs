//! What is known of each kind, small: made from the recorded answers, and never kept.

use std::{fs, path::Path};

use serde_json::{Value, json, value::RawValue};

use super::targets::ALL;

/// Larger seeds make a fuzzer slow, and show it nothing more.
const MAX_SEED: usize = 4 << 10;

/// The first elements of a recorded list that are small enough.
fn elements(list: &str) -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = Vec::new();
    for version in ["nomad-1.0.18", "nomad-2.0.5"] {
        let text = fs::read(fixtures.join(version).join("A").join(format!("{list}.body.json")));
        let text = text.unwrap();
        let all: Vec<&RawValue> = serde_json::from_slice(&text).unwrap();
        let mut small: Vec<&str> = all.iter().map(|it| it.get()).collect();
        small.sort_by_key(|it| it.len());
        found.extend(small.iter().take(2).map(|it| it.as_bytes().to_vec()));
    }
    assert!(!found.is_empty());
    found
}

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut found = match target {
        "splitter" => lists(),
        "lines" => commits(),
        "cursor" => checkpoints(),
        "environment" => environments(),
        "consul" => answers_of_consul(),
        "nomad" => objects(),
        "filter" => expressions(),
        other => panic!("no such target: {other}"),
    };
    found.retain(|it| it.len() <= MAX_SEED);
    assert!(!found.is_empty(), "{target} has no seeds");
    found
}

/// Expressions with a payload, and what is like one.
fn expressions() -> Vec<Vec<u8>> {
    const PAYLOAD: &str =
        r#"{"ID":"web","L":[{"a":1},{"a":"x"}],"N":-9223372036854775808,"M":{"k":[]}}"#;
    let expressions = [
        "type == \"nomad.job.changed\" && data.L.exists(it, it.a == 1)",
        "data.L.map(it, it.a).filter(it, it != 'x').size() == 1 || !has(data.M.k)",
        "time > timestamp('2026-01-01T00:00:00.5+01:00') ? 'k' in data.M : data['N'] % 2 == -data.N",
        "(1 + 2) * 3 - 4 / 5u == 1.5e3 && data.ID.matches('^w.*(?i)B$') && nomadindex in [7, 8]",
        "r'\\' + \"\\u00fc\" + '\\x41' == b'\\377' || {1: {'a': [true, null]}}[1].a[0]",
        "duration('1h') - duration('-5m') >= time - time && string(int('7') + 1) == \"\"\"8\"\"\"",
        "[[[1]]].all(a, a.all(b, b.exists_one(c, c == dyn(1) && type(c) == int)))",
        "data.L[0].a < data.L[1].a || bool('true') && double(1) == 1.0 && uint(1) == 1u",
        "Foo{bar: 1} || data.?x.orValue(1) || .data || data.`x` // comment",
    ];
    let with_payload = |it: &str| [it.as_bytes(), b"\0", PAYLOAD.as_bytes()].concat();
    expressions.map(with_payload).into()
}

const LISTS: [&str; 6] = [
    "allocations",
    "nodes",
    "evaluations",
    "jobs_namespace_star",
    "jobs_namespace_star",
    "deployments",
];

/// Two bytes that say how a target is to take the rest.
fn with(how: [u8; 2], text: &[u8]) -> Vec<u8> {
    [&how[..], text].concat()
}

fn lists() -> Vec<Vec<u8>> {
    let list = |elements: &[Vec<u8>]| {
        let texts: Vec<_> = elements.iter().map(|it| String::from_utf8_lossy(it)).collect();
        with([7, 200], format!("[{}]", texts.join(", ")).as_bytes())
    };
    let recorded = LISTS.iter().flat_map(|it| elements(it)).map(|it| list(&[it]));
    let odd = [r#" [ {"a":"]}\"["} ,[1,[2]],"x,]", 1.5e3 ,null,{}] "#, "[]", "<html>", "[[[[1]]]]"];
    recorded.chain(odd.iter().map(|it| with([1, 9], it.as_bytes()))).collect()
}

fn commits() -> Vec<Vec<u8>> {
    let mut found = vec![
        with([3, 250], b"{}\n{}\n"),
        with([200, 1], b"subscription closed by server\n"),
        with([9, 255], br#"{"Index":7,"Events":null}"#),
    ];
    for (topic, list) in [("Allocation", 0), ("Node", 1), ("Evaluation", 2), ("Job", 3)] {
        for object in elements(LISTS[list]) {
            let object = String::from_utf8(object).unwrap();
            let event = format!(r#"{{"Topic":"{topic}","Payload":{{"{topic}":{object}}}}}"#);
            let line = format!("{{\"Index\":7,\"Events\":[{event}]}}\n{{}}\n");
            found.push(with([99, 255], line.as_bytes()));
        }
    }
    found
}

fn checkpoints() -> Vec<Vec<u8>> {
    let head = "nomad-firehose-cursor-1 0123456789abcdef {\"tasks\":false}\n";
    let marks: Vec<u8> = (0..160).map(|it: u8| it.wrapping_mul(37)).collect();
    let damage: [[u8; 5]; 6] = [
        [1, 0, 3, 0, 9],
        [1, 0, 200, 0, 60],
        [2, 0, 3, 0, 90],
        [2, 1, 5, 1, 9],
        [2, 1, 250, 0, 40],
        [2, 1, 0, 0, 0],
    ];
    let mut found: Vec<Vec<u8>> = damage.iter().map(|it| [&it[..], &marks].concat()).collect();
    found.push([b"\0", head.as_bytes(), b"\0", b"17", b"\0", b"nomad-firehose-tails-2\n"].concat());
    found.push(b"\0nomad-firehose-cursor-2 x\0 18446744073709551615 \n".to_vec());
    found
}

fn environments() -> Vec<Vec<u8>> {
    // Each byte may name any variable, so all of them are tried with a few values.
    let values: [&[u8]; 6] = [b"http", b"10s", b"true", b"http://a:1/b", b"amqp", b"\xff"];
    let of = |value: &[u8], from: u8| {
        let lines = (from..from + 24).map(|it| [&[it][..], value].concat());
        lines.collect::<Vec<_>>().join(&b'\n')
    };
    values.iter().flat_map(|it| [0, 24, 48, 72].map(|from| of(it, from))).collect()
}

fn answers_of_consul() -> Vec<Vec<u8>> {
    let entry = json!([{
        "LockIndex": 1, "Key": "a/b.lock", "Flags": 3_304_740_253_564_472_344_u64, "Value": "MTc=",
        "Session": "adf4238a-882b-9ddc-4a9d-5b6758e4159e", "CreateIndex": 5, "ModifyIndex": 9,
    }]);
    let session = json!([{
        "ID": "adf4238a-882b-9ddc-4a9d-5b6758e4159e", "Name": "a", "Node": "n", "Checks": ["serfHealth"],
        "LockDelay": 1e9, "Behavior": "release", "TTL": "10s", "CreateIndex": 5, "ModifyIndex": 5,
    }]);
    let written = json!({"Results": [{"KV": entry[0]}], "Errors": null});
    let refused = json!({"Results": null, "Errors": [{"OpIndex": 0, "What": "not held"}]});
    let answers: [(u8, u8, &Value); 9] = [
        (0, 0, &json!({"ID": "adf4238a"})),
        (1, 0, &session),
        (2, 0, &entry),
        (2, 5, &Value::Null),
        (3, 0, &Value::Bool(true)),
        (4, 0, &session),
        (5, 0, &written),
        (5, 3, &refused),
        (5, 4, &json!("Permission denied")),
    ];
    let answers =
        answers.iter().map(|(which, how, it)| with([*which, *how], it.to_string().as_bytes()));
    answers.collect()
}

fn objects() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (which, list) in LISTS.iter().enumerate() {
        for (how, object) in elements(list).into_iter().enumerate() {
            found.push(with([which as u8, how as u8], &object));
        }
    }
    let agent = json!({"config": {"Version": {"Version": "1.9.2"}}});
    found.push(with([6, 0], agent.to_string().as_bytes()));
    found.push(with([6, 0], br#"[{"Name":"default","ModifyIndex":1}]"#));
    found.push(with([6, 2], b"Permission denied"));
    found
}

#[test]
fn every_target_has_seeds_which_are_small() {
    // A fuzzer begins with them where it is told a folder.
    let folder = std::env::var_os("FUZZ_CORPUS");
    for (name, _) in ALL {
        for (number, seed) in seeds(name).iter().enumerate() {
            let Some(folder) = &folder else { continue };
            let folder = Path::new(folder).join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
