//! A released program as it is in an image: in a root that has nothing but certificates, as a user
//! that is only a number. There is no container engine in it, only what one does with a program.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use nomad_firehose::{
    VERSION,
    standin::{consul::Consul, nomad::Nomad},
};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::not_checked;
use crate::{
    connecting::servers::Authority,
    firehose::{Program, Served, change},
    sinks::web::{TOKEN, Web},
    support::Version,
};

/// Where `tools/release` has put the programs.
const VARIABLE: &str = "RELEASE_DIR";
const PROGRAM: &str = "nomad-firehose";
const STREAM: &str = "nodes";
const CHROOT: &str = "/usr/sbin/chroot";
const USER: &str = "65532:65532";
/// A server of names has to be at this port.
const DNS_PORT: u16 = 53;
/// Where it is, since nobody else is there.
const DNS: Ipv4Addr = Ipv4Addr::new(127, 53, 7, 19);

/// A folder that is the whole world of a program.
struct Root(TempDir);

impl Root {
    /// `None` where this cannot be tried, which is said.
    fn new() -> Option<Self> {
        let Some(released) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            let why = format!("as {VARIABLE} is not set; tools/release builds the programs");
            not_checked("image", &why);
            return None;
        };
        let own = Command::new("id").arg("-u").output().unwrap().stdout;
        if own != b"0\n" || !Path::new(CHROOT).exists() {
            not_checked("image", "as only root can change the root of a process");
            return None;
        }
        let root = Self(tempfile::tempdir().unwrap());
        // Others have to be able to enter it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.0.path(), open).unwrap();
        fs::copy(released.join(PROGRAM), root.path(PROGRAM)).unwrap();
        Some(root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, arguments: &[&str]) -> Program {
        let root = self.0.path().to_str().unwrap();
        let user = format!("--userspec={USER}");
        let inside = format!("/{PROGRAM}");
        let chroot = [&*user, root, &inside, STREAM];
        Program::new(PROGRAM, CHROOT).arguments(&[&chroot, arguments].concat())
    }
}

/// TLS before a server that has none; the port that it is at.
async fn tls(tasks: &mut JoinSet<()>, config: ServerConfig, to: SocketAddr) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut io) = acceptor.accept(io).await else { return };
                let mut plain = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut io, &mut plain).await;
            });
        }
    });
    port
}

/// An answer to a query of the domain name system: any name is this machine.
fn named(query: &[u8]) -> Option<Vec<u8>> {
    // A name is a list of words, each after its length; the type is behind it.
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    let question = query.get(12..end + 5)?;
    let is_ipv4 = question[question.len() - 4..question.len() - 2] == [0, 1];
    let mut answer = query[..2].to_vec();
    // A response without an error, to one question, with one record or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(question);
    if is_ipv4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// Serves names; false where that is not possible here.
async fn serve_names(tasks: &mut JoinSet<()>) -> bool {
    let Ok(socket) = UdpSocket::bind((IpAddr::from(DNS), DNS_PORT)).await else { return false };
    tasks.spawn(async move {
        let mut query = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            if let Some(answer) = named(&query[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    true
}

fn address(served: &Served) -> SocketAddr {
    served.address.trim_start_matches("http://").parse().unwrap()
}

#[tokio::test]
async fn a_released_program_needs_nothing_but_certificates() {
    let Some(root) = Root::new() else { return };
    let version = root.program(&["--version"]).run().await;
    let (start, end) = (format!("{PROGRAM} {VERSION} (commit "), ")\n");
    assert!(version.out.starts_with(&start) && version.out.ends_with(end), "{version:?}");

    let (nomad, consul) = (Nomad::new(Version::V2_0), Consul::new());
    (0..3).for_each(|number| change(&nomad, number));
    let (nomad_port, consul_port) =
        (Served::new(nomad.router()).await, Served::new(consul.router()).await);
    let web = Web::start().await;
    let authority = Authority::new();
    let mut tasks = JoinSet::new();
    let nomad_tls =
        tls(&mut tasks, authority.server("nomad.test", false), address(&nomad_port)).await;
    let receiver = SocketAddr::from(([127, 0, 0, 1], web.port()));
    let web_tls = tls(&mut tasks, authority.server("events.test", false), receiver).await;

    let configured = |arguments: &[&str]| {
        root.program(arguments)
            .set("NOMAD_ADDR", format!("https://nomad.test:{nomad_tls}"))
            .set("CONSUL_HTTP_ADDR", &consul_port.address)
            .set("SINK_TYPE", "http")
            .set("SINK_HTTP_ADDRESS", format!("https://events.test:{web_tls}/"))
            .set("SINK_HTTP_TOKEN", TOKEN)
    };
    // Without certificates nobody can be trusted, and it says so.
    let bare = configured(&["--check"]).run().await;
    assert!(bare.code != Some(0) && bare.log.contains("certificates"), "{bare:?}");

    let certificates = fs::read_to_string(authority.file("authorities/ca.pem")).unwrap();
    root.write("etc/ssl/certs/ca-certificates.crt", &certificates);
    // Names come from where an engine has them: a file, or a server that a file names.
    if serve_names(&mut tasks).await {
        root.write("etc/resolv.conf", &format!("nameserver {DNS}\n"));
    } else {
        not_checked("names in an image", "as the port of a name server is not to be had");
        root.write("etc/hosts", "127.0.0.1 nomad.test events.test\n");
    }
    // A check asks without a record.
    web.answer_with(202, &[]);
    let check = configured(&["--check"]).run().await;
    assert_eq!(check.code, Some(0), "{check:?}");

    let running = configured(&[]).set("NOMAD_FIREHOSE_LISTEN", "127.0.0.1:0").start();
    let took = web.took(3).await;
    assert_eq!(took.len(), 3);
    // The check of the image asks for nothing else.
    let asks = || root.program(&["--health"]);
    let health =
        asks().set("NOMAD_FIREHOSE_LISTEN", running.serves().await.to_string()).run().await;
    assert_eq!(health.code, Some(0), "{health:?}");
    assert!(health.out.contains("\"ready\":true"), "{health:?}");
    running.stop().await;
    let saved = consul.entry("nomad-firehose/nodes.cursor");
    assert!(saved.is_some(), "the position is not saved");

    fs::remove_file(root.path("etc/resolv.conf")).ok();
    root.write("etc/hosts", "127.0.0.1 nomad.test events.test\n");
    web.answer_with(202, &[]);
    let check = configured(&["--check"]).run().await;
    assert_eq!(check.code, Some(0), "names of a file: {check:?}");
}

#[test]
fn a_query_for_a_name_is_answered_with_this_machine() {
    let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x05nomad\x04test\x00");
    query.extend([0, 1, 0, 1]);
    let answer = named(&query).unwrap();
    assert_eq!(answer[..2], [7, 9]);
    assert!(answer.ends_with(&[0, 4, 127, 0, 0, 1]));
    assert_eq!(named(&query[..14]), None);
}
