//! The environment: what is read from it, and what is said about mistakes.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use nomad_firehose::{
    env::{Env, Noted, Secret, SpanError, Switch, parse_duration, redacted},
    sink,
};

/// Everything said about the configuration that `read` makes of `env`.
fn problems<T>(env: Env, read: impl FnOnce(&Env) -> Result<T, Noted>) -> Vec<String> {
    let config = read(&env);
    match env.check(config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_problem_is_reported_once_and_all_at_once() {
    let env = Env::from([("WORKERS", "many"), ("VERIFY", "yes"), ("RESYNC", "5")]);
    let said = problems(env, |env| {
        let workers = env.or("WORKERS", 1);
        let verify = env.switch("VERIFY", true);
        let resync = env.duration("RESYNC", Duration::ZERO);
        let again = env.switch("VERIFY", true);
        let address: Result<String, _> = env.required("ADDRESS", "such as http://127.0.0.1:8080");
        Ok((workers?, verify?, resync?, again?, address?))
    });
    assert_eq!(
        said,
        [
            "WORKERS: `many`: invalid digit found in string",
            "VERIFY: `yes`: neither true nor false",
            "RESYNC: `5`: not a duration such as 10s, 300ms or 1h30m",
            "ADDRESS: is not set (such as http://127.0.0.1:8080)",
        ]
    );
}

#[test]
fn a_wrong_format_hides_no_mistake_of_the_receiver() {
    let env = Env::from([("SINK_TYPE", "stdout"), ("NOMAD_FIREHOSE_FORMAT", "xml")]);
    let format = "NOMAD_FIREHOSE_FORMAT: `xml` is not one of: payload, cloudevents";
    assert_eq!(problems(env, |env| sink::from_env(env).map(drop)), [format]);
    let env = Env::from([("SINK_TYPE", "http"), ("NOMAD_FIREHOSE_FORMAT", "xml")]);
    let address = "SINK_HTTP_ADDRESS: is not set (an address such as https://host/path)";
    assert_eq!(problems(env, |env| sink::from_env(env).map(drop)), [format, address]);
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let env = Env::from([("WORKERS", "")]);
    assert_eq!(env.or("WORKERS", 3), Ok(3));
    assert_eq!(env.optional::<String>("WORKERS"), Ok(None));
}

#[test]
fn a_problem_makes_the_check_fail_even_if_the_configuration_went_on_without_it() {
    let env = Env::from([("WORKERS", "many")]);
    assert_eq!(problems(env, |env| Ok(env.or("WORKERS", 1).unwrap_or(1))).len(), 1);
}

#[test]
fn a_value_that_is_not_utf_8_is_a_problem_and_a_name_that_is_not_is_nobodys() {
    let bad = || OsString::from_vec(vec![0xff]);
    let env: Env = [("WORKERS".into(), bad()), (bad(), "1".into())].into_iter().collect();
    assert_eq!(problems(env, |env| env.or("WORKERS", 1)), ["WORKERS: is not UTF-8"]);
}

#[test]
fn only_the_booleans_of_go_are_booleans() {
    for (text, expected) in [("1", true), ("t", true), ("TRUE", true), ("True", true)]
        .into_iter()
        .chain([("0", false), ("F", false), ("false", false), ("False", false)])
    {
        assert_eq!(text.parse(), Ok(Switch(expected)), "{text}");
    }
    for text in ["yes", "off", "tRUE", "2", " 1", ""] {
        assert!(text.parse::<Switch>().is_err(), "{text}");
    }
}

#[test]
fn durations_are_those_of_go_with_a_unit_and_without_a_sign() {
    for (text, millis) in [
        ("10s", 10_000),
        ("300ms", 300),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
        ("0.5h", 1_800_000),
        (".25s", 250),
        ("1.s", 1_000),
        ("2500us", 2),
        ("0s", 0),
    ] {
        assert_eq!(parse_duration(text).unwrap().as_millis(), millis, "{text}");
    }
    assert_eq!(parse_duration("1.5\u{b5}s"), Ok(Duration::from_nanos(1_500)));
    for text in ["", "5", "0", "-5s", "+5s", "s", ".s", "1.2.3s", "5 s", "5d", "1m30", "5S"] {
        assert_eq!(parse_duration(text), Err(SpanError::Malformed), "{text}");
    }
    for text in ["99999999999999999999s", "9999999h", "584y", "18446744073s1h"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn an_unknown_name_of_ours_is_warned_about_with_the_nearest_known_one() {
    let env = Env::from([
        ("SINK_TYPE", "stdout"),
        ("SINK_AMQP_CONECTION", "amqp://127.0.0.1"),
        ("SINK_HTTP_ADDRESS", "of another sink, which is no mistake"),
        ("NOMAD_FIREHOSE_LEADERS", "consul"),
        ("NOMAD_FIREHOSE_NOTHING_LIKE_IT", "1"),
        ("SOMEBODY_ELSES", "1"),
    ]);
    assert_eq!(
        env.unknown(),
        [
            "NOMAD_FIREHOSE_LEADERS is not a variable of this program; did you mean \
             NOMAD_FIREHOSE_LEADER?",
            "NOMAD_FIREHOSE_NOTHING_LIKE_IT is not a variable of this program; it has no effect",
            "SINK_AMQP_CONECTION is not a variable of this program; did you mean \
             SINK_AMQP_CONNECTION?",
        ]
    );
}

#[test]
fn a_name_that_was_asked_for_is_known() {
    let env = Env::from([("SINK_OF_A_FORK", "1")]);
    assert_eq!(env.unknown().len(), 1);
    env.optional::<String>("SINK_OF_A_FORK").unwrap();
    assert!(env.unknown().is_empty());
}

#[test]
fn secrets_are_shown_nowhere() {
    let env = Env::from([("TOKEN", "hunter2"), ("SINK", "amqp://me:hunter2@there/")]);
    let token: Secret = env.required("TOKEN", "").unwrap();
    assert_eq!(token.expose(), "hunter2");
    let problem = env.note("SINK", "`amqp://me:hunter2@there/` cannot be parsed");
    let shown = format!("{env:?} {token:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("me:"), "{shown}");
    let said = problems(env, |_| Err::<(), _>(problem));
    assert_eq!(said, ["SINK: `amqp://***@there/` cannot be parsed"]);
}

#[test]
fn user_info_is_left_out_of_addresses_however_odd() {
    for (address, expected) in [
        ("http://127.0.0.1:4646/a@b", "http://***@b"),
        ("http://u:p@h:1", "http://***@h:1"),
        ("u:p/with/slash@h:1", "***@h:1"),
        ("amqp://u:p@ss/w@rd@h", "amqp://***@h"),
        ("nats://u:p@a,nats://u:p@b", "nats://***@b"),
        ("http://h", "http://h"),
    ] {
        assert_eq!(redacted(address), expected);
    }
}
