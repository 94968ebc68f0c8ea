//! Certificates and keys whose files are replaced, and servers that change sides.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nomad_firehose::{api::connect, env::Env};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    connecting::servers::{Authority, OK},
    firehose::{Process, when},
    sinks::source::Source,
};

/// The files are looked at once a second at most.
const LOOKED_AGAIN: Duration = Duration::from_millis(1100);

/// A server that wants a certificate of its clients, and can be handed over to another authority.
/// Each connection has one request at most, and is counted once it was let in.
struct Guarded {
    port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    let_in: Arc<Mutex<usize>>,
    // Dropped with the server, which ends it.
    _task: JoinSet<()>,
}

impl Guarded {
    async fn by(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Mutex::new(Arc::new(authority.server("127.0.0.1", true))));
        let let_in = Arc::new(Mutex::new(0));
        let mut task = JoinSet::new();
        let (configured, counted) = (config.clone(), let_in.clone());
        task.spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let config = configured.lock().unwrap().clone();
                let Ok(mut io) = TlsAcceptor::from(config).accept(io).await else { continue };
                // AMQP begins without a line break, and is only to get so far.
                let mut first = [0; 4];
                if io.read_exact(&mut first).await.is_ok() {
                    *counted.lock().unwrap() += 1;
                    let _ = io.write_all(OK.as_bytes()).await;
                }
                let _ = io.shutdown().await;
            }
        });
        Self { port, config, let_in, _task: task }
    }

    fn hand_over_to(&self, authority: &Authority) {
        *self.config.lock().unwrap() = Arc::new(authority.server("127.0.0.1", true));
    }

    fn let_in(&self) -> usize {
        *self.let_in.lock().unwrap()
    }

    /// Waits until somebody is let in once more.
    async fn lets_in(&self) {
        let before = self.let_in();
        when("somebody is let in", || self.let_in() > before).await;
    }
}

#[tokio::test]
async fn new_connections_have_the_certificates_that_are_in_the_files_by_then() {
    let (ours, next) = (Authority::new(), Authority::new());
    let server = Guarded::by(&ours).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let (ca, cert, key) =
        (ours.file("authorities/ca.pem"), ours.file("cert.pem"), ours.file("key.pem"));
    let directory = ours.file("authorities");
    let nomad = Env::from([
        ("NOMAD_ADDR", &*url),
        ("NOMAD_CACERT", &ca),
        ("NOMAD_CLIENT_CERT", &cert),
        ("NOMAD_CLIENT_KEY", &key),
    ]);
    let consul = Env::from([
        ("CONSUL_HTTP_ADDR", &*url),
        ("CONSUL_CAPATH", &directory),
        ("CONSUL_CLIENT_CERT", &cert),
        ("CONSUL_CLIENT_KEY", &key),
    ]);
    let endpoints = [connect::nomad(&nomad).unwrap(), connect::consul(&consul).unwrap()];
    let all = async |is_let_in: bool| {
        for endpoint in &endpoints {
            let answer = endpoint.client().get(&url).send().await;
            assert_eq!(answer.is_ok(), is_let_in, "{answer:?}");
        }
    };
    all(true).await;

    server.hand_over_to(&next);
    all(false).await;
    // One after the other, as most tools write them: meanwhile they do not fit.
    ours.take_over(&next, "authorities/ca.pem");
    ours.take_over(&next, "cert.pem");
    sleep(LOOKED_AGAIN).await;
    all(false).await;
    ours.take_over(&next, "key.pem");
    sleep(LOOKED_AGAIN).await;
    all(true).await;
}

/// Two authorities, and a process that is let in by the first.
async fn guarded(sink: &str, set: impl Fn(u16) -> String) -> (Authority, Guarded, Process, Source) {
    let ours = Authority::new();
    let server = Guarded::by(&ours).await;
    let source = Source::new().await;
    source.evaluations("web", 0..1);
    let (kind, address) = match sink {
        "HTTP" => ("http", "ADDRESS"),
        _ => ("amqp", "CONNECTION"),
    };
    let running = source
        .program("evaluations")
        .set("SINK_TYPE", kind)
        .set("SINK_AMQP_EXCHANGE", "nomad")
        .set("SINK_AMQP_ROUTING_KEY", "nomad")
        .set(&format!("SINK_{sink}_{address}"), set(server.port))
        .set(&format!("SINK_{sink}_CACERT"), ours.file("authorities/ca.pem"))
        .set(&format!("SINK_{sink}_CLIENT_CERT"), ours.file("cert.pem"))
        .set(&format!("SINK_{sink}_CLIENT_KEY"), ours.file("key.pem"))
        .start();
    server.lets_in().await;
    (ours, server, running, source)
}

async fn follows(sink: &str, set: impl Fn(u16) -> String) {
    const WARNING: &str = "cannot use the certificates and keys that are in the files now";
    let (ours, server, running, source) = guarded(sink, set).await;
    let next = Authority::new();
    server.hand_over_to(&next);
    source.evaluations("web", 1..2);
    running.logs("the receiver is not available").await;
    ours.take_over(&next, "authorities/ca.pem");
    running.logs("certificates or keys have changed").await;
    ours.take_over(&next, "cert.pem");
    running.logs(WARNING).await;
    ours.take_over(&next, "key.pem");
    server.lets_in().await;
    let log = running.stop().await.log;
    assert_eq!(log.matches(WARNING).count(), 1, "{log}");
    assert_eq!(log.matches("certificates or keys have changed").count(), 2, "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[tokio::test]
async fn the_sink_http_follows_its_files() {
    follows("HTTP", |port| format!("https://127.0.0.1:{port}/in")).await;
}

#[tokio::test]
async fn the_sink_amqp_follows_its_files() {
    follows("AMQP", |port| format!("amqps://127.0.0.1:{port}")).await;
}
