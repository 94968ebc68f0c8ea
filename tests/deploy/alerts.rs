//! The alerts and the dashboard: they name what there is, and do what their tests say.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

use super::{file, metrics, not_checked, path, run, written};

/// A rule and its parts.
fn rules() -> Vec<Value> {
    let rules: Value = yaml_serde::from_str(&file("prometheus/alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let all: Vec<Value> =
        groups.iter().flat_map(|it| it["rules"].as_array().unwrap().clone()).collect();
    assert!(all.len() >= 10, "only {} alerts", all.len());
    all
}

/// Every expression of the dashboard, and how often a variable of it is replaced.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("grafana/nomad-firehose.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|it| it["targets"].as_array()).flatten();
    targets.map(|it| it["expr"].as_str().unwrap().to_owned()).collect()
}

/// What is wrong with the names in an expression.
fn imagined(expression: &str) -> Vec<String> {
    let names = metrics::named(expression);
    assert!(!names.is_empty(), "names no metric: {expression}");
    let names = names.into_iter().filter(|it| !metrics::exists(it));
    let labels = metrics::labels(expression).into_iter().filter(|it| !metrics::has_label(it));
    names.chain(labels).map(|it| format!("{it} in {expression}")).collect()
}

/// Where promtool is. Whoever sets the variable demands it.
fn promtool() -> String {
    std::env::var("PROMTOOL_BIN").unwrap_or_else(|_| "promtool".to_owned())
}

/// Runs promtool in the folder of the alerts, or in another; `None` where there is none.
fn check(arguments: &[&str], dir: &std::path::Path) -> Option<(bool, String)> {
    let output = run(Command::new(promtool()).args(arguments).current_dir(dir));
    if output.is_none() {
        assert!(std::env::var_os("PROMTOOL_BIN").is_none(), "PROMTOOL_BIN names no program");
        not_checked("alerts", "as there is no promtool; tools/promtool prints the path of one");
    }
    output.map(|it| (it.status.success(), written(&it)))
}

#[test]
fn the_alerts_and_the_dashboard_name_metrics_and_labels_that_exist() {
    let rules = rules();
    let alerts = rules.iter().map(|it| it["expr"].as_str().unwrap().to_owned());
    let wrong: Vec<_> = alerts.chain(expressions()).flat_map(|it| imagined(&it)).collect();
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
    assert_eq!(imagined("rate(nomad_firehose_events_total{where=\"x\"}[5m])").len(), 2);
}

#[test]
fn the_dashboard_shows_every_metric() {
    let shown = expressions().join(" ");
    let shown: BTreeSet<&str> = metrics::named(&shown).into_iter().collect();
    let hidden: Vec<_> = metrics::all()
        .filter(|it| {
            !shown.contains(it.as_str()) && !shown.contains(format!("{it}_bucket").as_str())
        })
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        for part in ["summary", "description", "runbook"] {
            let text = rule["annotations"][part].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name} has no {part}");
        }
    }
    let tried = file("prometheus/alerts_test.yaml");
    let untried: Vec<_> = names.iter().filter(|it| !tried.contains(&format!("\"{it}\""))).collect();
    assert!(untried.is_empty(), "no test makes these fire: {untried:?}");
}

#[test]
fn the_alerts_quote_the_log_as_it_is() {
    let mut sources = Vec::new();
    let mut left = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                // A text may be cut over lines.
                let text = fs::read_to_string(path).unwrap();
                sources.push(text.split("\\\n").map(str::trim_start).collect::<String>());
            }
        }
    }
    let mut quoted = 0;
    for rule in rules() {
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        for message in runbook.split('`').skip(1).step_by(2).filter(|it| it.contains(' ')) {
            let logged = sources.iter().any(|it| it.contains(message));
            assert!(logged, "{} quotes what nobody logs: {message}", rule["alert"]);
            quoted += 1;
        }
    }
    assert!(quoted > 3, "only {quoted} messages are quoted");
}

#[test]
fn the_alerts_fire_when_they_should_and_not_otherwise() {
    let dir = path("prometheus");
    let Some((passed, said)) = check(&["check", "rules", "alerts.yaml"], &dir) else { return };
    assert!(passed, "{said}");
    let (passed, said) = check(&["test", "rules", "alerts_test.yaml"], &dir).unwrap();
    assert!(passed, "{said}");
    // What a test does not expect fails it.
    let dir = tempfile::tempdir().unwrap();
    fs::copy(path("prometheus/alerts.yaml"), dir.path().join("alerts.yaml")).unwrap();
    let tests =
        file("prometheus/alerts_test.yaml").replace("NomadFirehoseGap", "NomadFirehoseStuck");
    fs::write(dir.path().join("tests.yaml"), tests).unwrap();
    let (passed, said) = check(&["test", "rules", "tests.yaml"], dir.path()).unwrap();
    assert!(!passed && said.contains("NomadFirehoseGap"), "{said}");
}

#[test]
fn the_expressions_of_the_dashboard_are_ones() {
    let expressions = expressions().into_iter().enumerate().map(|(index, expression)| {
        let expression = expression.replace("$__rate_interval", "5m");
        serde_json::json!({"record": format!("panel:{index}"), "expr": expression})
    });
    let groups = serde_json::json!({"groups": [
        {"name": "dashboard", "rules": expressions.collect::<Vec<_>>()},
    ]});
    let dir = tempfile::tempdir().unwrap();
    // JSON is YAML as well.
    fs::write(dir.path().join("dashboard.yaml"), groups.to_string()).unwrap();
    let Some((passed, said)) = check(&["check", "rules", "dashboard.yaml"], dir.path()) else {
        return;
    };
    assert!(passed, "{said}");
}
