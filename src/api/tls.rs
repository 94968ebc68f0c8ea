//! The TLS settings of Nomad's and Consul's clients and of sinks, which differ in names only.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Certificate, ClientBuilder, Identity, Url};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, DnsName, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::env::{Env, Noted};

/// The names of the variables.
pub(crate) struct Variables {
    pub(crate) ca_cert: &'static str,
    pub(crate) ca_path: &'static str,
    pub(crate) client_cert: &'static str,
    pub(crate) client_key: &'static str,
    pub(crate) server_name: &'static str,
}

/// What `NOMAD_*` calls them.
pub(super) const NOMAD: Variables = Variables {
    ca_cert: "NOMAD_CACERT",
    ca_path: "NOMAD_CAPATH",
    client_cert: "NOMAD_CLIENT_CERT",
    client_key: "NOMAD_CLIENT_KEY",
    server_name: "NOMAD_TLS_SERVER_NAME",
};

/// What `CONSUL_*` calls them.
pub(super) const CONSUL: Variables = Variables {
    ca_cert: "CONSUL_CACERT",
    ca_path: "CONSUL_CAPATH",
    client_cert: "CONSUL_CLIENT_CERT",
    client_key: "CONSUL_CLIENT_KEY",
    server_name: "CONSUL_TLS_SERVER_NAME",
};

/// What they are called for the sink that speaks HTTP.
#[cfg(feature = "http")]
pub(super) const SINK_HTTP: Variables = Variables {
    ca_cert: "SINK_HTTP_CACERT",
    ca_path: "SINK_HTTP_CAPATH",
    client_cert: "SINK_HTTP_CLIENT_CERT",
    client_key: "SINK_HTTP_CLIENT_KEY",
    server_name: "SINK_HTTP_TLS_SERVER_NAME",
};

/// How to prove who we are, and to tell whether the server is who it should be.
pub(crate) struct Tls {
    trust: Trust,
    identity: Option<Key>,
    server_name: Option<String>,
    trust_variable: &'static str,
}

/// Whose certificates are good.
enum Trust {
    /// Those of the authorities that the system trusts.
    System,
    /// Those of these authorities, and of no others.
    Only(Vec<CertificateDer<'static>>),
    /// Anybody's.
    Everyone,
}

/// A certificate of ours and its key, in the forms that the clients take.
#[cfg_attr(not(feature = "amqp"), expect(dead_code, reason = "only a client of HTTP is built"))]
struct Key {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: Identity,
}

impl Tls {
    /// Reads the settings and every file they name, whether or not the address is one with TLS:
    /// a file that cannot be read is a mistake in any case.
    pub(crate) fn read(
        env: &Env,
        names: &Variables,
        verify: Result<bool, Noted>,
    ) -> Result<Self, Noted> {
        let roots = roots(env, names);
        let identity = identity(env, names);
        let server_name = server_name(env, names);
        let trust = match (verify?, roots?) {
            (false, _) => Trust::Everyone,
            (true, Some(roots)) => Trust::Only(roots),
            (true, None) => Trust::System,
        };
        let (identity, server_name) = (identity?, server_name?);
        Ok(Self { trust, identity, server_name, trust_variable: names.ca_cert })
    }

    /// The name in the server's certificate, where it is not the host of the address.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The variable that says whom to trust.
    pub(super) fn trust_variable(&self) -> &'static str {
        self.trust_variable
    }

    /// Puts the settings into effect.
    pub(super) fn apply(self, builder: ClientBuilder) -> ClientBuilder {
        let builder = match self.trust {
            Trust::System => builder,
            Trust::Only(roots) => {
                // All of them were certificates when they were read.
                builder
                    .tls_certs_only(roots.iter().filter_map(|der| Certificate::from_der(der).ok()))
            }
            Trust::Everyone => builder.tls_danger_accept_invalid_certs(true),
        };
        match self.identity {
            Some(key) => builder.identity(key.identity),
            None => builder,
        }
    }

    /// The settings for a connection that is not HTTP. There, whom to trust is always checked.
    #[cfg(feature = "amqp")]
    pub(crate) fn config(self) -> Result<rustls::ClientConfig, rustls::Error> {
        use rustls::ClientConfig;
        use rustls_platform_verifier::BuilderVerifierExt;

        let provider = std::sync::Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self.trust {
            Trust::Only(roots) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots);
                builder.with_root_certificates(store)
            }
            Trust::System | Trust::Everyone => builder.with_platform_verifier()?,
        };
        match self.identity {
            Some(Key { chain, key, .. }) => builder.with_client_auth_cert(chain, key),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn roots(env: &Env, names: &Variables) -> Result<Option<Vec<CertificateDer<'static>>>, Noted> {
    let file = env.optional::<PathBuf>(names.ca_cert);
    let directory = env.optional::<PathBuf>(names.ca_path);
    match (file?, directory?) {
        (Some(file), _) => authorities(env, names.ca_cert, &file).map(Some),
        (None, Some(directory)) => all_authorities(env, names.ca_path, &directory).map(Some),
        (None, None) => Ok(None),
    }
}

/// The certificates in all files below a directory, as the official clients find them.
fn all_authorities(
    env: &Env,
    name: &'static str,
    directory: &Path,
) -> Result<Vec<CertificateDer<'static>>, Noted> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |err| env.note(name, format!("cannot list {}: {err}", directory.display()));
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // A link to a directory is not followed: it could lead back to where it is.
            if entry.file_type().map_err(failed)?.is_dir() {
                directories.push(path);
            } else if !path.is_dir() {
                found.append(&mut authorities(env, name, &path)?);
            }
        }
    }
    if found.is_empty() {
        return Err(env.note(name, format!("no certificates below {}", directory.display())));
    }
    Ok(found)
}

fn authorities(
    env: &Env,
    name: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Noted> {
    let mut store = RootCertStore::empty();
    let found = certificates(env, name, path, &read(env, name, path)?)?;
    for der in &found {
        Certificate::from_der(der).map_err(|err| unusable(env, name, path, err))?;
        store.add(der.clone()).map_err(|err| unusable(env, name, path, err))?;
    }
    Ok(found)
}

fn identity(env: &Env, names: &Variables) -> Result<Option<Key>, Noted> {
    let cert_path = env.optional::<PathBuf>(names.client_cert);
    let key_path = env.optional::<PathBuf>(names.client_key);
    let (cert_path, key_path) = match (cert_path?, key_path?) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            let what = format!("is not set, and {} is: set both or neither", names.client_cert);
            return Err(env.note(names.client_key, what));
        }
        (None, Some(_)) => {
            let what = format!("is not set, and {} is: set both or neither", names.client_key);
            return Err(env.note(names.client_cert, what));
        }
    };
    let cert = read(env, names.client_cert, &cert_path)
        .and_then(|pem| Ok((certificates(env, names.client_cert, &cert_path, &pem)?, pem)));
    let key = read(env, names.client_key, &key_path)
        .and_then(|pem| Ok((private_key(env, names.client_key, &key_path, &pem)?, pem)));
    let ((chain, mut pem), (key, key_pem)) = (cert?, key?);
    // Checks among others that the one belongs to the other.
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider())
        .map_err(|err| unusable(env, names.client_key, &key_path, err))?;
    // One file often holds both, and its certificates must not be sent twice.
    if cert_path != key_path {
        pem.push(b'\n');
        pem.extend(key_pem);
    }
    match Identity::from_pem(&pem) {
        Ok(identity) => Ok(Some(Key { chain, key, identity })),
        Err(err) => Err(unusable(env, names.client_cert, &cert_path, err)),
    }
}

fn server_name(env: &Env, names: &Variables) -> Result<Option<String>, Noted> {
    let Some(name) = env.optional::<String>(names.server_name)? else { return Ok(None) };
    let name = match name.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => &name,
    };
    let name = name.to_ascii_lowercase();
    // It must do for a certificate, and as the host of an address.
    let is_host = |url: Url| url.domain() == Some(&name);
    if DnsName::try_from(name.as_str()).is_ok()
        && Url::parse(&format!("https://{name}")).is_ok_and(is_host)
    {
        return Ok(Some(name));
    }
    let what = format!("`{name}` is not a DNS name such as server.global.nomad");
    Err(env.note(names.server_name, what))
}

fn read(env: &Env, name: &'static str, path: &Path) -> Result<Vec<u8>, Noted> {
    fs::read(path).map_err(|err| env.note(name, format!("cannot read {}: {err}", path.display())))
}

fn certificates(
    env: &Env,
    name: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Noted> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|err| unusable(env, name, path, err))?;
    if found.is_empty() {
        return Err(env.note(name, format!("no PEM certificate in {}", path.display())));
    }
    Ok(found)
}

fn private_key(
    env: &Env,
    name: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, Noted> {
    // The error shows what was found, which here could be a part of a key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        env.note(name, format!("no PEM private key without a passphrase in {}", path.display()))
    })
}

fn unusable(
    env: &Env,
    name: &'static str,
    path: &Path,
    err: impl std::error::Error + 'static,
) -> Noted {
    env.note(name, format!("cannot use {}: {}", path.display(), crate::error::Chain(&err)))
}
