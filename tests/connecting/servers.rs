//! Servers with and without TLS, and an authority that vouches for them.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use nomad_firehose::api::connect;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Nothing, but successfully.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Gives every request the same answer, and remembers what it was sent.
pub struct Server {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    // Dropped with the server, which ends it.
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn http(answer: &'static str) -> Self {
        Self::start(None, answer).await
    }

    pub async fn tls(config: ServerConfig) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), OK).await
    }

    async fn start(tls: Option<TlsAcceptor>, answer: &'static str) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::default());
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&heads);
        tasks.spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                match &tls {
                    None => serve(io, &seen, answer).await,
                    // A handshake fails where the test wants it to.
                    Some(tls) => match tls.accept(io).await {
                        Ok(io) => serve(io, &seen, answer).await,
                        Err(_) => continue,
                    },
                }
            }
        });
        Self { port, heads, _tasks: tasks }
    }

    pub fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let heads = Arc::new(Mutex::default());
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&heads);
        tasks.spawn(async move {
            loop {
                serve(listener.accept().await.unwrap().0, &seen, OK).await;
            }
        });
        Self { port: 0, heads, _tasks: tasks }
    }

    /// The head of the request that came last, in lower case.
    pub fn last(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// How many requests came.
    pub fn served(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

async fn serve(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<String>>,
    answer: &str,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            // The client changed its mind, for instance about the certificate.
            Err(_) => return,
        }
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap().to_lowercase());
    let _ = io.write_all(answer.as_bytes()).await;
    let _ = io.shutdown().await;
}

/// An authority, its files, and those of a client it knows.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    files: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        connect::install_crypto();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let pem = params.self_signed(&key).unwrap().pem();
        let it = Self { issuer: Issuer::new(params, key), pem, files: TempDir::new().unwrap() };
        let (cert, key) = it.issue("client");
        fs::create_dir(it.files.path().join("authorities")).unwrap();
        fs::write(it.files.path().join("authorities/ca.pem"), &it.pem).unwrap();
        fs::write(it.files.path().join("cert.pem"), cert).unwrap();
        fs::write(it.files.path().join("key.pem"), key).unwrap();
        it
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        // One that has the name of its issuer is taken for one that vouches for itself.
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The path of `authorities/ca.pem`, of its directory, or of the client's `cert.pem` and `key.pem`.
    pub fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Puts another authority's file in the place of its own.
    pub fn take_over(&self, other: &Self, name: &str) {
        let next = self.files.path().join("next");
        fs::copy(other.files.path().join(name), &next).unwrap();
        fs::rename(&next, self.files.path().join(name)).unwrap();
    }

    /// The certificate and the key of a server called `name`, as files.
    pub fn server_files(&self, name: &str) -> (String, String) {
        let (cert, key) = self.issue(name);
        fs::write(self.files.path().join("server.pem"), cert).unwrap();
        fs::write(self.files.path().join("server.key"), key).unwrap();
        (self.file("server.pem"), self.file("server.key"))
    }

    /// A server called `name`, and whether it wants a certificate of its clients.
    pub fn server(&self, name: &str, wants_certificate: bool) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = match wants_certificate {
            true => ServerConfig::builder().with_client_cert_verifier(
                WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap(),
            ),
            false => ServerConfig::builder().with_no_client_auth(),
        };
        let (cert, key) = self.issue(name);
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        builder.with_single_cert(vec![cert], key).unwrap()
    }
}
