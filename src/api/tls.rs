//! The TLS settings of Nomad's and Consul's clients and of sinks, which differ in names only.

use std::path::PathBuf;

use reqwest::{Certificate, ClientBuilder, Url};
use rustls::pki_types::DnsName;

use super::{
    certificates::{Authorities, Files, Loaded, Named, Unusable},
    reload::Reloaded,
};
use crate::{
    env::{Env, Noted},
    error::BoxError,
};

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
    files: Files,
    loaded: Loaded,
    verify: bool,
    server_name: Option<String>,
    trust_variable: &'static str,
}

impl Tls {
    /// Reads the settings and every file they name, whether or not the address is one with TLS:
    /// a file that cannot be read is a mistake in any case.
    pub(crate) fn read(
        env: &Env,
        names: &Variables,
        verify: Result<bool, Noted>,
    ) -> Result<Self, Noted> {
        let authorities = authorities(env, names);
        let client = client(env, names);
        // What is wrong with the files is said of those that are named rightly.
        let files = Files {
            authorities: authorities.clone().unwrap_or_default(),
            client: client.clone().unwrap_or_default(),
        };
        let loaded = files.load().map_err(|Unusable(wrong)| {
            let noted = wrong.into_iter().map(|(name, what)| env.note(name, what));
            noted.last()
        });
        let server_name = server_name(env, names);
        let verify = verify?;
        authorities?;
        client?;
        let trust_variable = names.ca_cert;
        match loaded {
            Ok(loaded) => {
                Ok(Self { files, loaded, verify, server_name: server_name?, trust_variable })
            }
            Err(Some(noted)) => Err(noted),
            // There is always something that was wrong.
            Err(None) => Err(env.note(trust_variable, "cannot be used")),
        }
    }

    /// The name in the server's certificate, where it is not the host of the address.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The variable that says whom to trust.
    pub(super) fn trust_variable(&self) -> &'static str {
        self.trust_variable
    }

    /// A client made of the settings and the files, and made again when these change. Its idle
    /// connections, which were made with the old ones, go with it.
    pub(super) fn client(
        self,
        builder: impl Fn() -> ClientBuilder + Send + Sync + 'static,
    ) -> Result<Reloaded<reqwest::Client>, BoxError> {
        let verify = self.verify;
        Reloaded::new(self.files, self.loaded, move |loaded| {
            let builder = match loaded.roots {
                _ if !verify => builder().tls_danger_accept_invalid_certs(true),
                None => builder(),
                Some(roots) => {
                    // All of them were certificates when they were read.
                    let roots = roots.iter().filter_map(|der| Certificate::from_der(der).ok());
                    builder().tls_certs_only(roots)
                }
            };
            let builder = match loaded.key {
                Some(key) => builder.identity(key.identity),
                None => builder,
            };
            Ok(builder.build()?)
        })
    }

    /// A client for where there is no TLS, so that the system needs no certificates.
    pub(super) fn plain_client(
        builder: ClientBuilder,
    ) -> Result<Reloaded<reqwest::Client>, BoxError> {
        let client = builder.tls_certs_only([]).build()?;
        let nothing = Loaded { digest: 0, roots: None, key: None };
        Reloaded::new(Files::default(), nothing, move |_| Ok(client.clone()))
    }

    /// The settings for a connection that is not HTTP. There, whom to trust is always checked.
    #[cfg(any(
        feature = "amqp",
        feature = "nats",
        feature = "nsq",
        feature = "redis",
        feature = "syslog"
    ))]
    pub(crate) fn config(self) -> Result<Reloaded<std::sync::Arc<rustls::ClientConfig>>, BoxError> {
        use std::sync::Arc;

        use rustls::{ClientConfig, RootCertStore, crypto::ring};
        use rustls_platform_verifier::BuilderVerifierExt;

        use super::certificates::Key;

        Reloaded::new(self.files, self.loaded, |loaded| {
            let provider = Arc::new(ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?;
            let builder = match loaded.roots {
                Some(roots) => {
                    let mut store = RootCertStore::empty();
                    store.add_parsable_certificates(roots);
                    builder.with_root_certificates(store)
                }
                None => builder.with_platform_verifier()?,
            };
            Ok(Arc::new(match loaded.key {
                Some(Key { chain, key, .. }) => builder.with_client_auth_cert(chain, key)?,
                None => builder.with_no_client_auth(),
            }))
        })
    }

    /// The same for a library that takes the host of an address for the name in the server's
    /// certificate, whatever the settings say.
    #[cfg(feature = "nats")]
    pub(crate) fn config_for_its_name(
        self,
    ) -> Result<Reloaded<std::sync::Arc<rustls::ClientConfig>>, BoxError> {
        use std::sync::Arc;

        use rustls::{ClientConfig, crypto::ring};

        use super::{certificates::Key, named::Expecting};

        let Some(name) = &self.server_name else { return self.config() };
        let name = DnsName::try_from(name.as_str())?.to_owned();
        Reloaded::new(self.files, self.loaded, move |loaded| {
            let provider = Arc::new(ring::default_provider());
            let verifier = Expecting::new(name.clone(), loaded.roots, &provider)?;
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            Ok(Arc::new(match loaded.key {
                Some(Key { chain, key, .. }) => builder.with_client_auth_cert(chain, key)?,
                None => builder.with_no_client_auth(),
            }))
        })
    }

    /// The same in PEM, for a client library that makes settings of its own.
    #[cfg(feature = "kafka")]
    pub(crate) fn pem(self) -> Result<Reloaded<std::sync::Arc<Pem>>, BoxError> {
        use rustls::pki_types::PrivateKeyDer;

        use super::certificates::Key;

        Reloaded::new(self.files, self.loaded, |loaded| {
            let chain = |of: &[rustls::pki_types::CertificateDer<'_>]| {
                of.iter().map(|it| armoured("CERTIFICATE", it)).collect::<String>().into_bytes()
            };
            let client = loaded.key.map(|Key { chain: certificates, key, .. }| {
                let label = match &key {
                    PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
                    PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
                    _ => "PRIVATE KEY",
                };
                (chain(&certificates), armoured(label, key.secret_der()).into_bytes())
            });
            let authorities = loaded.roots.map(|it| chain(&it));
            Ok(std::sync::Arc::new(Pem { authorities, client }))
        })
    }
}

/// Certificates and a key in PEM.
#[cfg(feature = "kafka")]
pub(crate) struct Pem {
    /// Of those whom to trust; `None` for whom the system trusts.
    pub(crate) authorities: Option<Vec<u8>>,
    /// A certificate, and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "kafka")]
fn armoured(label: &str, der: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};

    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn authorities(env: &Env, names: &Variables) -> Result<Option<Authorities>, Noted> {
    let file = env.optional::<PathBuf>(names.ca_cert);
    let directory = env.optional::<PathBuf>(names.ca_path);
    Ok(match (file?, directory?) {
        (Some(path), _) => Some(Authorities::File(Named { variable: names.ca_cert, path })),
        (None, Some(path)) => Some(Authorities::Directory(Named { variable: names.ca_path, path })),
        (None, None) => None,
    })
}

fn client(env: &Env, names: &Variables) -> Result<Option<(Named, Named)>, Noted> {
    let cert = env.optional::<PathBuf>(names.client_cert);
    let key = env.optional::<PathBuf>(names.client_key);
    let named = |variable, path| Named { variable, path };
    match (cert?, key?) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            Ok(Some((named(names.client_cert, cert), named(names.client_key, key))))
        }
        (Some(_), None) => {
            let what = format!("is not set, and {} is: set both or neither", names.client_cert);
            Err(env.note(names.client_key, what))
        }
        (None, Some(_)) => {
            let what = format!("is not set, and {} is: set both or neither", names.client_key);
            Err(env.note(names.client_cert, what))
        }
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
