//! A token in a file, over real connections.

use std::{fs, sync::Arc, time::Duration};

use nomad_firehose::{
    api::{Consul, connect, connect::ConsulScope},
    env::Env,
    error::Chain,
    standin::nomad::{Nomad as StandIn, Table, Version},
};
use tokio::time::Instant;

use super::{Scripted, SecretFile, answer, nodes, nomad};
use crate::{
    firehose::{Program, Served, when},
    sinks::source::Source,
    support::node,
};

#[tokio::test]
async fn a_request_that_is_denied_is_sent_again_at_once_where_its_token_was_replaced_meanwhile() {
    for (status, said) in [(403, "Permission denied"), (401, ""), (500, "ACL token not found")] {
        let token = Arc::new(SecretFile::new("old"));
        let rotating = token.clone();
        let server = Scripted::new(move |given| match given {
            "new" => answer(200, "[]"),
            _ => {
                rotating.replace("new");
                answer(status, said)
            }
        })
        .await;
        let nomad = nomad(&server.served.address, &token);
        nomad.list_nodes(&nodes(None)).await.unwrap();
        assert_eq!(server.seen(), ["GET old", "GET new"], "{status}");
    }
}

#[tokio::test]
async fn a_request_that_is_denied_is_sent_once_where_the_file_has_the_same_token() {
    for status in [401, 403, 500] {
        let token = SecretFile::new("old");
        let server = Scripted::new(move |_| answer(status, "Permission denied")).await;
        let nomad = nomad(&server.served.address, &token);
        let err = nomad.list_nodes(&nodes(None)).await.err().unwrap();
        assert_eq!(err.status(), Some(status));
        assert!(Chain(&err).to_string().contains("NOMAD_FIREHOSE_TOKEN_FILE"), "{err}");
        assert_eq!(server.seen(), ["GET old"]);
    }
}

#[tokio::test]
async fn a_server_that_denies_every_token_is_asked_a_few_times_only() {
    let token = Arc::new(SecretFile::new("0"));
    let rotating = token.clone();
    let server = Scripted::new(move |given| {
        rotating.replace(&(given.parse::<u32>().unwrap() + 1).to_string());
        answer(403, "Permission denied")
    })
    .await;
    let nomad = nomad(&server.served.address, &token);
    nomad.list_nodes(&nodes(None)).await.err().unwrap();
    assert_eq!(server.seen(), ["GET 0", "GET 1", "GET 2"]);
}

#[tokio::test]
async fn a_write_is_sent_again_after_a_denial_and_not_after_a_failure() {
    for (status, requests) in [(403, vec!["PUT old", "PUT new"]), (500, vec!["PUT old"])] {
        let token = Arc::new(SecretFile::new("old"));
        let rotating = token.clone();
        let server = Scripted::new(move |given| match given {
            "new" => answer(200, "true"),
            _ => {
                rotating.replace("new");
                answer(status, "rpc error")
            }
        })
        .await;
        let env = Env::from([
            ("CONSUL_HTTP_ADDR", &*server.served.address),
            ("CONSUL_HTTP_TOKEN_FILE", &token.shown()),
        ]);
        let endpoint = connect::consul(&env);
        let consul = Consul::new(env.check(endpoint).unwrap(), ConsulScope::default());
        assert_eq!(consul.acquire("a/lock", "session").await.is_ok(), requests.len() == 2);
        assert_eq!(server.seen(), requests);
    }
}

#[tokio::test]
async fn a_list_that_waits_is_asked_for_again_and_without_a_wait_once_its_token_was_replaced() {
    let stand_in = StandIn::new(Version::V2_0);
    let index = stand_in.upsert(Table::Nodes, node("a", "ready"));
    let served = Served::new(stand_in.router()).await;
    let token = SecretFile::new("old");
    stand_in.require_token(Some("old".into()));
    let nomad = nomad(&served.address, &token);
    let query = nodes(Some(index));
    let list = nomad.list_nodes(&query);
    let rotate = async {
        when("the list is asked for", || !stand_in.requests().is_empty()).await;
        stand_in.require_token(Some("new".into()));
        token.replace("new");
    };
    let (page, ()) = tokio::join!(list, rotate);
    assert_eq!(page.unwrap().index.0, index);
    let requests = stand_in.requests();
    let [waits, at_once] = &requests[..] else { panic!("{requests:?}") };
    assert!(waits.asks("wait=300000ms") && waits.asks(&format!("index={index}")), "{waits:?}");
    assert!(!at_once.query.contains("wait") && !at_once.query.contains("index"), "{at_once:?}");
    assert!(at_once.asks("namespace=*") || at_once.asks("namespace=%2A"), "{at_once:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_another_token_has_it_within_a_second() {
    let token = SecretFile::new("old");
    let nomad = nomad("http://127.0.0.1:9", &token);
    let since = Instant::now();
    let rotate = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        // What is half written or gone is no other token.
        fs::write(token.path(), "").unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        fs::remove_file(token.path()).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        token.replace("new");
    };
    tokio::join!(nomad.token_changed(), rotate);
    let waited = since.elapsed();
    assert!(
        waited >= Duration::from_secs(3620) && waited <= Duration::from_secs(3621),
        "{waited:?}"
    );
    assert_eq!(nomad.token_changes(), 1);
}

#[tokio::test]
async fn a_receiver_that_denies_is_asked_again_at_once_where_the_token_was_replaced_meanwhile() {
    let (source, token) = (Source::new().await, Arc::new(SecretFile::new("old")));
    let rotating = token.clone();
    let server = Scripted::new(move |given| match given {
        "Bearer new" => answer(204, ""),
        _ => {
            rotating.replace("new");
            answer(401, "")
        }
    })
    .await;
    source.evaluations("web", 0..1);
    let running = source
        .program("evaluations")
        .set("SINK_TYPE", "http")
        .set("SINK_HTTP_ADDRESS", &server.served.address)
        .set("SINK_HTTP_TOKEN_FILE", token.shown())
        .start();
    when("the record is taken", || server.seen().len() == 2).await;
    let log = running.stop().await.log;
    assert_eq!(server.seen(), ["POST Bearer old", "POST Bearer new"]);
    assert!(!log.contains("401 Unauthorized"), "{log}");
}

/// The binary of a stream with its token in a file.
fn program(source: &Source, token: &SecretFile) -> Program {
    source
        .program("evaluations")
        .set("SINK_TYPE", "stdout")
        .set("NOMAD_FIREHOSE_TOKEN_FILE", token.shown())
        .set("NOMAD_FIREHOSE_RESYNC", "1s")
}

#[tokio::test]
async fn a_process_goes_on_by_itself_after_its_token_was_revoked_and_later_replaced() {
    let (source, token) = (Source::new().await, SecretFile::new("one"));
    source.nomad.require_token(Some("one".into()));
    source.evaluations("web", 0..1);
    let running = program(&source, &token).start();
    running.logs("changes come from Nomad's event stream").await;
    running.publishes(1).await;

    // Revoked first; the file follows a few attempts later, by way of nothing and of half a token.
    source.nomad.require_token(Some("two-two".into()));
    source.evaluations("web", 1..2);
    running.logs("answered 403").await;
    let denied = || source.nomad.requests().len();
    let before = denied();
    when("it is tried again", || denied() > before + 2).await;
    fs::write(token.path(), "").unwrap();
    let before = denied();
    when("it is tried again", || denied() > before).await;
    fs::write(token.path(), "two").unwrap();
    let before = denied();
    when("it is tried again", || denied() > before).await;
    let replaced = Instant::now();
    token.replace("two-two");
    running.publishes(2).await;
    // A wait would take longer by now: another token ends it.
    assert!(replaced.elapsed() < Duration::from_secs(10), "{:?}", replaced.elapsed());

    // The stream is back, too, and not only the list.
    source.evaluations("web", 2..3);
    running.publishes(3).await;
    fs::remove_file(token.path()).unwrap();
    running.logs_times(2, "cannot use the file with the token").await;
    source.evaluations("web", 3..4);
    running.publishes(4).await;
    let log = running.stop().await.log;
    assert_eq!(log.matches("cannot use the file with the token").count(), 2, "{log}");
    assert!(!log.contains("changes come from lists"), "{log}");
}

#[tokio::test]
async fn a_stream_that_was_denied_to_a_token_is_asked_for_with_the_next_one_and_not_in_an_hour() {
    let (source, token) = (Source::new().await, SecretFile::new("one"));
    for _ in 0..2 {
        let denied = nomad_firehose::standin::Fault::status(403, "Permission denied");
        source.nomad.script("/v1/event/stream", denied);
    }
    source.evaluations("web", 0..1);
    let running = program(&source, &token).start();
    running.logs("changes come from lists, which cost more").await;
    token.replace("two");
    running.logs("changes come from Nomad's event stream").await;
    source.evaluations("web", 1..2);
    running.publishes(2).await;
    running.stop().await;
}
