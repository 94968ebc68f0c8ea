//! Who may publish with the sink `nats`: logins, permissions, TLS; and what a check and a log say.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    consul::free_port,
    nats::{World, names},
    nats_server::{Message, STREAM, Server, USERS},
};
use crate::{authority::Authority, firehose::Program, sinks::proxy::Proxy};

/// A user who may publish to one subject, and hear answers.
const NARROW: &str = r#"authorization { users: [
    {user: admin, password: admin}
    {user: firehose, password: "let me in", permissions: {
        publish: ["events.web", "_INBOX.>"], subscribe: "_INBOX.>"
    }}
] }"#;
/// A user who cannot hear answers.
const DEAF: &str = r#"authorization { users: [
    {user: admin, password: admin}
    {user: firehose, password: "let me in", permissions: {publish: "events", subscribe: "none"}}
] }"#;

#[tokio::test]
async fn a_subject_that_the_user_must_not_publish_to_waits_and_others_go_on() {
    for mode in ["jetstream", "core"] {
        let mut world = World::with(Server::start_with(NARROW).await).await;
        world.server.stream_of("events.>").await;
        let admin = world.server.admin().await;
        let mut listening = admin.subscribe("events.>").await.unwrap();
        admin.flush().await.unwrap();
        world.event("a", "web");
        world.event("b", "other");
        let running = world
            .stream("allocations")
            .set("SINK_NATS_MODE", mode)
            .set("SINK_NATS_SUBJECT", "events.{job}")
            .start();
        running.logs("must not publish to the subject `events.other`").await;
        assert_eq!(listening.next().await.unwrap().subject.as_str(), "events.web");
        world.event("c", "web");
        assert_eq!(listening.next().await.unwrap().subject.as_str(), "events.web");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_user_who_cannot_hear_answers_is_told_what_is_missing() {
    for mode in ["jetstream", "core"] {
        let mut world = World::with(Server::start_with(DEAF).await).await;
        world.server.stream_of("events").await;
        world.nodes(&["a"]);
        let running = world.stream("nodes").set("SINK_NATS_MODE", mode).start();
        running.logs("must be allowed to subscribe to _INBOX.>").await;
        assert!(running.log.text().contains("ERROR"));
        running.stop().await;
    }
}

#[tokio::test]
async fn the_next_of_several_servers_is_used_where_the_first_is_away() {
    let mut world = World::new().await;
    world.nodes(&["a"]);
    let address = format!("nats://127.0.0.1:{},{}", free_port(), world.server.address());
    let running = world.program("nodes", &address).start();
    assert_eq!(names(&world.server.messages(1).await), ["a"]);
    running.stop().await;
}

#[tokio::test]
async fn a_token_in_a_file_is_read_again_for_each_connection() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "wrong-token\n").unwrap();
    let server = Server::start_with("authorization { token: let-me-in }").await;
    let world = World::with(server).await;
    let client = async_nats::ConnectOptions::with_token("let-me-in".into());
    let client = client.connect(format!("127.0.0.1:{}", world.server.port())).await.unwrap();
    let mut listening = client.subscribe("events").await.unwrap();
    client.flush().await.unwrap();
    world.nodes(&["a"]);
    let address = format!("127.0.0.1:{}", world.server.port());
    let running = world
        .program("nodes", &address)
        .set("SINK_NATS_MODE", "core")
        .set("SINK_NATS_TOKEN_FILE", file.to_str().unwrap())
        .start();
    running.logs("did not let us in").await;
    fs::write(&file, "let-me-in\n").unwrap();
    assert_eq!(Message::from(listening.next().await.unwrap()).name(), "a");
    let log = running.stop().await.log;
    assert!(!log.contains("wrong-token") && !log.contains("let-me-in"), "{log}");
}

/// A key of this kind, and its seed and its name, as NATS writes them.
struct Key {
    pair: Ed25519KeyPair,
    seed: String,
    name: String,
}

impl Key {
    /// `letter` is `O` for an operator, `A` for an account, `U` for a user.
    fn new(letter: u8, bytes: u8) -> Self {
        let prefix = (letter - b'A') << 3;
        let raw = [bytes; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&raw).unwrap();
        let seed = 18_u8 << 3;
        let seed = [&[seed | prefix >> 5, (prefix & 31) << 3], &raw[..]].concat();
        let name = [&[prefix], pair.public_key().as_ref()].concat();
        Self { pair, seed: base32(&seed), name: base32(&name) }
    }

    /// Says that this is so.
    fn claim(&self, subject: &Self, name: &str, nats: Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ed25519-nkey"}).to_string();
        let claims = json!({
            "jti": name, "iat": 1, "iss": self.name, "sub": subject.name, "name": name,
            "nats": nats,
        });
        let encoded = |it: &[u8]| URL_SAFE_NO_PAD.encode(it);
        let said =
            format!("{}.{}", encoded(header.as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = encoded(self.pair.sign(said.as_bytes()).as_ref());
        format!("{said}.{signature}")
    }
}

/// The bytes and their checksum, in the alphabet of RFC 4648 without padding.
fn base32(bytes: &[u8]) -> String {
    let mut crc = 0_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    let all = [bytes, &crc.to_le_bytes()].concat();
    let bit = |at: usize| all.get(at / 8).map_or(0, |it| it >> (7 - at % 8) & 1);
    let digits = (0..(all.len() * 8).div_ceil(5)).map(|digit| {
        let value = (0..5).fold(0, |value, at| value << 1 | bit(digit * 5 + at));
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)])
    });
    digits.collect()
}

/// A check goes well with this login, and not without one.
async fn lets_in(settings: &str, variable: &str, file: &str) {
    let world = World::with(Server::start_with(settings).await).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("login");
    fs::write(&path, file).unwrap();
    let address = format!("127.0.0.1:{}", world.server.port());
    let check = || {
        let program = world.program("nodes", &address).set("SINK_NATS_MODE", "core");
        program.arguments(&["--check"])
    };
    let good = check().set(variable, path.to_str().unwrap()).run().await;
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.log);
    let none = check().run().await;
    assert_eq!(none.code, Some(1), "{}{}", none.out, none.log);
    assert!(none.out.contains("did not let us in"), "{}", none.out);
}

#[tokio::test]
async fn an_nkey_lets_us_in() {
    let user = Key::new(b'U', 7);
    let settings = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.name);
    lets_in(&settings, "SINK_NATS_NKEY_FILE", &user.seed).await;
}

#[tokio::test]
async fn credentials_let_us_in() {
    let (operator, account, user) = (Key::new(b'O', 1), Key::new(b'A', 2), Key::new(b'U', 3));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let operator_jwt =
        operator.claim(&operator, "operator", json!({"type": "operator", "version": 2}));
    let account_jwt = operator.claim(
        &account,
        "account",
        json!({"type": "account", "version": 2, "limits": limits}),
    );
    let user_jwt = account.claim(
        &user,
        "user",
        json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}),
    );
    let settings = format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
        account.name
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------",
        user.seed
    );
    lets_in(&settings, "SINK_NATS_CREDENTIALS_FILE", &credentials).await;
}

/// A server that is called `nats.test`, asks for a certificate, and the authority that vouches for
/// both.
struct Secure {
    authority: Authority,
    world: World,
}

impl Secure {
    async fn new() -> Self {
        let authority = Authority::new();
        let (cert, key) = authority.server_files("nats.test");
        let ca = authority.file("authorities/ca.pem");
        let tls = format!(
            "tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: true }}"
        );
        let world = World::with(Server::start_with(&format!("{tls}\n{USERS}")).await).await;
        Self { authority, world }
    }

    /// A check, which needs no stream.
    fn check(&self) -> Program {
        let address = self.world.server.address().replace("nats://", "tls://");
        self.world
            .program("nodes", &address)
            .set("SINK_NATS_SUBJECT", "nomad.{stream}")
            .set("SINK_NATS_TLS_SERVER_NAME", "nats.test")
            .arguments(&["--check"])
    }

    fn known(&self, program: Program) -> Program {
        program
            .set("SINK_NATS_CLIENT_CERT", self.authority.file("cert.pem"))
            .set("SINK_NATS_CLIENT_KEY", self.authority.file("key.pem"))
    }
}

#[tokio::test]
async fn a_server_and_a_client_that_the_same_authority_vouches_for_talk_to_each_other() {
    let secure = Secure::new().await;
    let ca = secure.authority.file("authorities/ca.pem");
    let good = secure.known(secure.check()).set("SINK_NATS_CACERT", &ca).run().await;
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.log);
    // The server asks for TLS, whatever the address says.
    let plain = secure.known(secure.check()).set("SINK_NATS_CACERT", &ca);
    let plain = plain.set("SINK_NATS_URL", secure.world.server.address()).run().await;
    assert_eq!(plain.code, Some(0), "{}{}", plain.out, plain.log);
}

#[tokio::test]
async fn without_the_right_certificates_or_the_right_name_nobody_talks() {
    let secure = Secure::new().await;
    let ca = secure.authority.file("authorities/ca.pem");
    let other = Authority::new().file("authorities/ca.pem");
    let wrong_name = secure.known(secure.check()).set("SINK_NATS_CACERT", &ca);
    for wrong in [
        secure.check().set("SINK_NATS_CACERT", &ca),
        secure.known(secure.check()).set("SINK_NATS_CACERT", other),
        wrong_name.set("SINK_NATS_TLS_SERVER_NAME", "other.test"),
        secure
            .known(secure.check())
            .set("SINK_NATS_CACERT", &ca)
            .set("SINK_NATS_TLS_SERVER_NAME", ""),
        // No authority of the system vouches for it.
        secure.known(secure.check()),
    ] {
        let finished = wrong.run().await;
        assert_ne!(finished.code, Some(0), "{}", finished.out);
        assert!(!finished.out.contains("let me in"), "{}", finished.out);
    }
}

#[tokio::test]
async fn a_check_says_whether_there_is_a_stream_and_publishes_nothing() {
    let mut world = World::new().await;
    world.nodes(&["a"]);
    let port = world.server.port();
    let admin = format!("nats://admin:admin@127.0.0.1:{port}");
    let check = |address: &str| world.program("nodes", address).arguments(&["--check"]);
    let mut good = vec![
        check(&admin),
        check(&admin).set("SINK_NATS_SUBJECT", "nomad.{stream}"),
        check(&admin).set("SINK_NATS_STREAM", STREAM),
        check(&admin).set("SINK_NATS_MODE", "core"),
    ];
    // Who may only publish must not ask, which proves nothing.
    good.push(check(&world.server.address()));
    for program in good {
        let finished = program.run().await;
        assert_eq!(finished.code, Some(0), "{}{}", finished.out, finished.log);
    }
    let wrong = admin.replace(":admin@", ":planted-password@");
    for (program, why) in [
        (check(&admin).set("SINK_NATS_SUBJECT", "other"), "no stream has the subject `other`"),
        (check(&admin).set("SINK_NATS_STREAM", "OTHER"), "there is no stream `OTHER`"),
        (check(&wrong), "did not let us in"),
    ] {
        let finished = program.run().await;
        assert_eq!(finished.code, Some(1));
        let row = finished.out.lines().find(|it| it.starts_with("sink ")).unwrap();
        assert!(row.contains("FAILED") && row.contains(why), "{row}");
        assert!(!finished.out.contains("planted"), "{}", finished.out);
    }
    assert!(world.server.take().await.is_empty());
}

#[tokio::test]
async fn no_password_and_no_payload_is_in_the_log_whatever_happens() {
    let world = World::with(Server::start().await).await;
    world.nodes(&["planted-payload"]);
    let proxy = Proxy::to(world.server.port()).await;
    let port = world.server.port().to_string();
    let good = world.server.address().replace(&port, &proxy.port().to_string());
    let no_stream = world.program("nodes", &good).set("LOG_LEVEL", "trace").start();
    no_stream.logs("no stream has the subject").await;
    let denied = good.replace("let%20me%20in", "planted%20password");
    let denied = world.program("nodes", &denied).set("LOG_LEVEL", "trace").start();
    denied.logs("did not let us in").await;
    for process in [no_stream, denied] {
        let log = process.stop().await.log;
        for secret in ["planted", "let me in", "let%20me%20in"] {
            assert!(!log.contains(secret), "{log}");
        }
    }
}

#[tokio::test]
async fn every_mistake_is_told_before_anything_connects() {
    let program = Program::stream("nodes")
        .set("SINK_TYPE", "nats")
        .set("SINK_NATS_URL", "http://u:planted@nats")
        .set("SINK_NATS_SUBJECT", "events.*")
        .set("SINK_NATS_MODE", "maybe")
        .set("SINK_NATS_STREAM", "a b")
        .set("SINK_NATS_CREDENTIALS_FILE", "/nowhere.creds")
        .set("SINK_NATS_NKEY_FILE", "/nowhere.nk")
        .set("SINK_NATS_TOKEN_FILE", "/nowhere.token")
        .set("SINK_NATS_CACERT", "/nowhere.pem")
        .set("SINK_NATS_CLIENT_CERT", "/nowhere.pem");
    let finished = program.run().await;
    assert_eq!(finished.code, Some(crate::firehose::CONFIGURATION));
    for name in [
        "SINK_NATS_URL",
        "SINK_NATS_SUBJECT",
        "SINK_NATS_MODE",
        "SINK_NATS_STREAM",
        "SINK_NATS_CREDENTIALS_FILE",
        "SINK_NATS_NKEY_FILE",
        "SINK_NATS_TOKEN_FILE",
        "SINK_NATS_CACERT",
        "SINK_NATS_CLIENT_KEY",
    ] {
        assert!(finished.log.contains(&format!("{name}: ")), "{name}: {}", finished.log);
    }
    assert!(!finished.log.contains("planted"), "{}", finished.log);
}
