//! What Consul answers.

use std::{future::Future, sync::OnceLock, time::Duration};

use axum::{Router, body::Body, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use nomad_firehose::{
    api::{Consul, TxnRefused, Write, connect},
    error::Chain,
};
use serde_json::Value;

/// A server that answers everything with this, and a client for it.
pub fn answering(status: u16, index: &'static str, body: &[u8]) -> (Router, reqwest::Client) {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let client = CLIENT.get_or_init(|| {
        connect::install_crypto();
        reqwest::Client::builder().tls_certs_only([]).build().unwrap()
    });
    let body = Bytes::copy_from_slice(body);
    let router = Router::new().fallback(move || {
        let answer = Response::builder().status(status).header(index, "7");
        let answer = answer.body(Body::from(body.clone())).unwrap();
        async move { answer }
    });
    (router, client.clone())
}

pub fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work);
}

/// A session that does not exist, a lock that is not held and a value that was not written are
/// never read out of what is not what Consul answers.
pub fn consul(input: &[u8]) {
    let Some(([which, how], body)) = input.split_first_chunk::<2>() else { return };
    let status = [200, 200, 200, 409, 403, 404, 500][usize::from(how % 7)];
    let (router, client) = answering(status, "X-Consul-Index", body);
    let consul = Consul::stand_in(router, client);
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let fine = status == 200;
    run(async {
        let err = match which % 6 {
            0 => match consul.create_session("a", Duration::ZERO, Duration::ZERO).await {
                Ok(id) => {
                    assert!(fine && value.unwrap()["ID"] == *id);
                    None
                }
                Err(err) => Some(err),
            },
            1 => match consul.session_checks("a").await {
                Ok(_) => {
                    assert!(fine && value.is_none_or(|it| it.is_array()));
                    None
                }
                Err(err) => Some(err),
            },
            2 => match consul.read("a", None).await {
                Ok(key) => {
                    assert_eq!(key.index, 7);
                    if let (Some(entry), Some(value)) = (key.entry, value) {
                        let written = value[0]["Value"].as_str().unwrap_or_default();
                        assert_eq!(entry.value, BASE64_STANDARD.decode(written).unwrap());
                    }
                    None
                }
                Err(err) => Some(err),
            },
            3 => match consul.acquire("a", "b").await {
                Ok(won) => {
                    assert!(fine && value == Some(Value::Bool(won)));
                    None
                }
                Err(err) => Some(err),
            },
            4 => match consul.renew("a", Duration::from_secs(1)).await {
                Ok(there) => {
                    assert_eq!(there, status != 404);
                    None
                }
                Err(err) => Some(err),
            },
            _ => {
                let write = Write { key: "a", value: b"b", cas: None };
                match consul.write_fenced("lock", "session", vec![write]).await {
                    Ok(index) => {
                        // Saved is what Consul has given an index, and nothing else.
                        assert!(fine && String::from_utf8_lossy(body).contains(&index.to_string()));
                        None
                    }
                    Err(TxnRefused::Api(err)) => Some(err),
                    Err(refused) => {
                        assert_eq!(status, 409);
                        super::is_brief(&refused.to_string());
                        None
                    }
                }
            }
        };
        if let Some(err) = err {
            super::is_brief(&Chain(&err).to_string());
        }
    });
}
