//! Certificates and keys in files: whose are trusted, and our own.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use reqwest::{Certificate, Identity};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use xxhash_rust::xxh3::Xxh3;

use crate::error::Chain;

/// The most that is read of a file. All authorities of the public web have a quarter of a
/// megabyte.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The files that the settings name, each with its variable.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) authorities: Option<Authorities>,
    /// A certificate, and its key.
    pub(super) client: Option<(Named, Named)>,
}

/// Where the certificates of authorities are.
#[derive(Clone, Debug)]
pub(super) enum Authorities {
    File(Named),
    Directory(Named),
}

/// A path, and the variable that holds it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) variable: &'static str,
    pub(super) path: PathBuf,
}

/// What is in the files.
pub(super) struct Loaded {
    /// Tells of which contents it is.
    pub(super) digest: u64,
    pub(super) roots: Option<Vec<CertificateDer<'static>>>,
    pub(super) key: Option<Key>,
}

/// A certificate of ours and its key, in the forms that the clients take.
#[cfg_attr(
    not(any(
        feature = "amqp",
        feature = "kafka",
        feature = "nats",
        feature = "nsq",
        feature = "redis",
        feature = "syslog"
    )),
    expect(dead_code, reason = "only a client of HTTP is built")
)]
pub(super) struct Key {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) identity: Identity,
}

/// Files that cannot be used: for each the variable, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(name, what)| format!("{name}: {what}")).collect::<Vec<_>>().join("; "))]
pub(super) struct Unusable(pub(super) Vec<(&'static str, String)>);

type Found<T> = Result<T, Unusable>;

impl Files {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_none() && self.client.is_none()
    }

    /// Reads them. What is wrong is found all at once.
    pub(super) fn load(&self) -> Found<Loaded> {
        // Before anything is read, so that what changes meanwhile is noticed later.
        let digest = self.digest();
        let roots = self.authorities.as_ref().map(Authorities::load).transpose();
        let key = self.client.as_ref().map(|(cert, key)| Key::load(cert, key)).transpose();
        match (roots, key) {
            (Ok(roots), Ok(key)) => Ok(Loaded { digest, roots, key }),
            (Err(one), Err(other)) => Err(both(one, other)),
            (Err(one), _) | (_, Err(one)) => Err(one),
        }
    }

    /// What is in all of them, in short. Their times and sizes do not always tell that they
    /// changed.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut add = |path: &Path| {
            hasher.update(path.as_os_str().as_encoded_bytes());
            match read(path) {
                Ok(bytes) => {
                    hasher.update(&bytes.len().to_le_bytes());
                    hasher.update(&bytes);
                }
                Err(err) => hasher.update(format!("{:?}", err.kind()).as_bytes()),
            }
        };
        match &self.authorities {
            Some(Authorities::File(file)) => add(&file.path),
            Some(Authorities::Directory(directory)) => match below(&directory.path) {
                Ok(paths) => paths.iter().for_each(|it| add(it)),
                Err((path, _)) => add(&path),
            },
            None => (),
        }
        if let Some((cert, key)) = &self.client {
            add(&cert.path);
            add(&key.path);
        }
        hasher.digest()
    }
}

fn both(mut one: Unusable, other: Unusable) -> Unusable {
    one.0.extend(other.0);
    one
}

impl Named {
    fn wrong(&self, what: String) -> Unusable {
        Unusable(vec![(self.variable, what)])
    }

    fn unusable(&self, path: &Path, err: impl std::error::Error + 'static) -> Unusable {
        self.wrong(format!("cannot use {}: {}", path.display(), Chain(&err)))
    }

    fn read(&self, path: &Path) -> Found<Vec<u8>> {
        read(path).map_err(|err| self.wrong(format!("cannot read {}: {err}", path.display())))
    }

    fn certificates(&self, path: &Path, pem: &[u8]) -> Found<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|err| self.unusable(path, err))?;
        if found.is_empty() {
            return Err(self.wrong(format!("no PEM certificate in {}", path.display())));
        }
        Ok(found)
    }

    fn authorities(&self, path: &Path) -> Found<Vec<CertificateDer<'static>>> {
        let mut store = RootCertStore::empty();
        let found = self.certificates(path, &self.read(path)?)?;
        for der in &found {
            Certificate::from_der(der).map_err(|err| self.unusable(path, err))?;
            store.add(der.clone()).map_err(|err| self.unusable(path, err))?;
        }
        Ok(found)
    }
}

impl Authorities {
    fn load(&self) -> Found<Vec<CertificateDer<'static>>> {
        let directory = match self {
            Self::File(file) => return file.authorities(&file.path),
            Self::Directory(directory) => directory,
        };
        let paths = below(&directory.path).map_err(|(path, err)| {
            directory.wrong(format!("cannot list {}: {err}", path.display()))
        })?;
        let mut found = Vec::new();
        for path in paths {
            found.append(&mut directory.authorities(&path)?);
        }
        if found.is_empty() {
            let what = format!("no certificates below {}", directory.path.display());
            return Err(directory.wrong(what));
        }
        Ok(found)
    }
}

impl Key {
    fn load(cert: &Named, key: &Named) -> Found<Self> {
        let (cert_path, key_path) = (&cert.path, &key.path);
        let chain =
            cert.read(cert_path).and_then(|pem| Ok((cert.certificates(cert_path, &pem)?, pem)));
        let private = key.read(key_path).and_then(|pem| {
            // The error shows what was found, which here could be a part of a key.
            let found = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
                let what = "no PEM private key without a passphrase in";
                key.wrong(format!("{what} {}", key_path.display()))
            })?;
            Ok((found, pem))
        });
        let ((chain, mut pem), (private, key_pem)) = match (chain, private) {
            (Ok(chain), Ok(private)) => (chain, private),
            (Err(one), Err(other)) => return Err(both(one, other)),
            (Err(one), _) | (_, Err(one)) => return Err(one),
        };
        // Checks among others that the one belongs to the other.
        CertifiedKey::from_der(chain.clone(), private.clone_key(), &ring::default_provider())
            .map_err(|err| key.unusable(key_path, err))?;
        // One file often holds both, and its certificates must not be sent twice.
        if cert_path != key_path {
            pem.push(b'\n');
            pem.extend(key_pem);
        }
        match Identity::from_pem(&pem) {
            Ok(identity) => Ok(Self { chain, key: private, identity }),
            Err(err) => Err(cert.unusable(cert_path, err)),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All files below a directory, as the official clients find them.
fn below(directory: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |err| (directory.clone(), err);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // A link to a directory is not followed: it could lead back to where it is.
            if entry.file_type().map_err(failed)?.is_dir() {
                directories.push(path);
            } else if !path.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
