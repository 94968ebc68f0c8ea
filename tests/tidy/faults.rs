//! Houses with one fault each, which the checks must find.

use super::*;

#[test]
fn every_check_finds_the_fault_that_it_is_for() {
    let one = |path: &str, text: &str| vec![Source::new(path, text)];
    let up = one("src/sink/http.rs", "use crate::{env::Env, deliver::Delivery};");
    assert_eq!(wrong_imports(&up), ["src/sink/http.rs must not import deliver"]);
    let across = one("src/leader.rs", "fn f(x: &crate::sink::Sink) {} use super::streams;");
    assert_eq!(wrong_imports(&across).len(), 2);
    let apart = one("src/run/config.rs", "use crate::standin;");
    assert_eq!(wrong_imports(&apart), ["src/run/config.rs must not import standin"]);
    let apart = one("src/standin/nomad.rs", "use crate::{standin::answer, cursor};");
    assert_eq!(wrong_imports(&apart), ["src/standin/nomad.rs must not import cursor"]);

    let misplaced = misplaced_modules(&one("src/helpers.rs", ""));
    assert!(misplaced.contains(&"helpers is in no layer".to_owned()));
    assert!(misplaced.contains(&"there is no module run".to_owned()));

    assert_eq!(long_files(&one("src/a.rs", &"\n".repeat(MAX_LINES + 1))).len(), 1);
    assert_eq!(long_files(&one("bin/a.rs", &"\n".repeat(MAX_BIN_LINES + 1))).len(), 1);

    let reads = one("src/a.rs", r#"env.or("SINK_NEW", "NOMAD_FIREHOSE_"); // "SINK_OLD""#);
    assert_eq!(undocumented_variables(&reads, "`SINK_NEWER` SINK_NEW"), ["SINK_NEW"]);
    assert_eq!(imagined_variables(&reads, "`SINK_NEW=1` `SINK_*` `SINK_OLD`"), ["SINK_OLD"]);

    let logs = one("src/a.rs", "warn!(a = 1, \"it is \\\n  gone\")");
    let page = format!(
        "{LOG_HEADING}\n\n| `it is gone` | x |\n| `it is back` | y |\n\n## z\n| `other` | z |"
    );
    assert_eq!(imagined_messages(&logs, &page), ["it is back"]);
    assert_eq!(imagined_messages(&logs, "").len(), 1);

    let map = "| `src/b.rs` | `src/c.rs` | `firehose-demo.rs` |";
    assert_eq!(unmapped(&one("src/a.rs", ""), map), ["src/a.rs", "src/b.rs", "src/c.rs"]);

    for (path, text) in [
        ("src/sink/a.rs", "use reqwest::Client;"),
        ("src/leader/a.rs", "endpoint.client.get(url).send()"),
        ("src/api/lists.rs", "self.client().post(url)"),
        ("src/api/kv.rs", "it.execute(request)"),
        ("src/api/connect.rs", "client.get(url).send()"),
    ] {
        assert_eq!(own_requests(&one(path, text)).len(), 1, "{path}");
    }
    assert_eq!(own_requests(&one("src/a.rs", "map.get(key); self.client.list_nodes()")).len(), 0);

    for text in ["todo!()", "unimplemented!(\"x\")", "// TODO: x", "#[test]\n#[ignore = \"slow\"]"]
    {
        assert_eq!(unfinished(&one("src/a.rs", text)).len(), 1, "{text}");
    }

    let file = Source::new("src/sink/b.rs", "");
    for table in ["const SINKS: X = [b::B];", "mod b; const SINKS: X = [];", "mod b; use b::B;"] {
        let sources = [Source::new("src/sink.rs", table), Source::new(&file.path, "")];
        assert_eq!(unreachable(&sources, "sink", &["const", "SINKS"]).len(), 1, "{table}");
    }
}
