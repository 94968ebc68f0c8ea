//! What `NOMAD_*` and `CONSUL_*` do, seen by the server that they lead to.

use std::{error::Error, fs};

use nomad_firehose::{
    api::connect::{self, ConsulScope, Endpoint},
    env::{Env, Noted},
    error::Chain,
};
use tempfile::TempDir;

use servers::{Authority, OK, Server};

#[allow(dead_code, reason = "the other test binary needs the rest")]
pub mod servers;

type Connect = fn(&Env) -> Result<Endpoint, Noted>;

fn endpoint<const N: usize>(connect: Connect, vars: [(&str, &str); N]) -> Endpoint {
    let env = Env::from(vars);
    let config = connect(&env);
    env.check(config).unwrap()
}

fn problems<const N: usize>(connect: Connect, vars: [(&str, &str); N]) -> Vec<String> {
    let env = Env::from(vars);
    let config = connect(&env);
    env.check(config).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Requests something; what is wrong if there is no answer.
async fn get(endpoint: &Endpoint) -> Result<u16, String> {
    let url = format!("{}/v1/status/leader", endpoint.base);
    let mut request = endpoint.client().get(url).build().unwrap();
    endpoint.credentials.apply(request.headers_mut());
    let answer = endpoint.client().execute(request).await;
    answer.map(|it| it.status().as_u16()).map_err(|err| Chain(&err as &dyn Error).to_string())
}

#[tokio::test]
async fn only_a_server_that_a_configured_authority_vouches_for_is_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::tls(ours.server("127.0.0.1", false)).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let (good, directory) = (ours.file("authorities/ca.pem"), ours.file("authorities"));
    let bad = theirs.file("authorities/ca.pem");

    for (name, path) in [("NOMAD_CACERT", &good), ("NOMAD_CAPATH", &directory)] {
        let nomad = endpoint(connect::nomad, [("NOMAD_ADDR", &url), (name, path)]);
        assert_eq!(get(&nomad).await, Ok(200), "{name}");
    }
    let consul = endpoint(connect::consul, [("CONSUL_HTTP_ADDR", &url), ("CONSUL_CACERT", &good)]);
    assert_eq!(get(&consul).await, Ok(200));

    let vars = [("NOMAD_ADDR", &*url), ("NOMAD_CACERT", &bad), ("NOMAD_CAPATH", &directory)];
    let said = get(&endpoint(connect::nomad, vars)).await.unwrap_err();
    assert!(
        said.contains("invalid peer certificate"),
        "the file goes before the directory: {said}"
    );

    let skip = [("NOMAD_ADDR", &*url), ("NOMAD_CACERT", &bad), ("NOMAD_SKIP_VERIFY", "1")];
    assert_eq!(get(&endpoint(connect::nomad, skip)).await, Ok(200));
    let skip = [("CONSUL_HTTP_ADDR", &*url), ("CONSUL_HTTP_SSL_VERIFY", "false")];
    assert_eq!(get(&endpoint(connect::consul, skip)).await, Ok(200));
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_the_one_configured() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("127.0.0.1", true)).await;
    let address = format!("127.0.0.1:{}", server.port);
    let ca = authority.file("authorities/ca.pem");
    let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
    let trusting =
        [("CONSUL_HTTP_ADDR", &*address), ("CONSUL_HTTP_SSL", "true"), ("CONSUL_CACERT", &ca)];

    // What it says depends on whether its alert or the end of the connection is seen first.
    assert!(get(&endpoint(connect::consul, trusting)).await.is_err());
    assert_eq!(server.served(), 0);

    let [a, b, c] = trusting;
    let known = [a, b, c, ("CONSUL_CLIENT_CERT", &*cert), ("CONSUL_CLIENT_KEY", &*key)];
    assert_eq!(get(&endpoint(connect::consul, known)).await, Ok(200));

    let both = authority.file("both.pem");
    fs::write(&both, fs::read_to_string(&key).unwrap() + &fs::read_to_string(&cert).unwrap())
        .unwrap();
    let known = [a, b, c, ("CONSUL_CLIENT_CERT", &*both), ("CONSUL_CLIENT_KEY", &*both)];
    assert_eq!(get(&endpoint(connect::consul, known)).await, Ok(200));
}

#[tokio::test]
async fn the_server_name_is_what_the_certificate_has_to_say_wherever_the_server_is() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("server.global.nomad", false)).await;
    let ca = authority.file("authorities/ca.pem");
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{}", server.port);
        let trusting = [("NOMAD_ADDR", &*url), ("NOMAD_CACERT", &*ca)];
        let said = get(&endpoint(connect::nomad, trusting)).await.unwrap_err();
        assert!(said.contains("certificate not valid for name"), "{said}");

        let [a, b] = trusting;
        let name = ("NOMAD_TLS_SERVER_NAME", "server.global.nomad:4646");
        // The name could not be looked up by a proxy.
        let nomad = endpoint(connect::nomad, [a, b, name, ("HTTPS_PROXY", "http://127.0.0.1:1")]);
        assert_eq!(get(&nomad).await, Ok(200));
        assert!(server.last().contains(&format!("host: {host}:{}\r\n", server.port)));
        assert_eq!(nomad.shown, url);
    }
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let files = TempDir::new().unwrap();
    let socket = files.path().join("api.sock");
    let url = format!("unix://{}", socket.display());
    let server = Server::unix(&socket);
    for nomad in [
        endpoint(connect::nomad, [("NOMAD_ADDR", &url), ("HTTP_PROXY", "http://127.0.0.1:1")]),
        endpoint(connect::nomad, [("NOMAD_UNIX_ADDR", &url)]),
        endpoint(connect::consul, [("CONSUL_HTTP_ADDR", &url)]),
    ] {
        assert_eq!(get(&nomad).await, Ok(200));
        assert_eq!(nomad.shown, url);
    }
    assert_eq!(server.served(), 3);
    let both = [("NOMAD_ADDR", "http://nomad.example:4646"), ("NOMAD_UNIX_ADDR", &*url)];
    assert_eq!(endpoint(connect::nomad, both).base, "http://nomad.example:4646");
}

#[tokio::test]
async fn a_password_in_the_address_goes_before_the_variable_and_a_token_beside_it() {
    let server = Server::http(OK).await;
    let plain = format!("http://127.0.0.1:{}", server.port);
    let named = format!("http://me:p%40ss@127.0.0.1:{}/ui", server.port);
    let auth = ("NOMAD_HTTP_AUTH", "you:pass:word");

    get(&endpoint(connect::nomad, [("NOMAD_ADDR", &plain), auth])).await.unwrap();
    assert!(server.last().contains("authorization: basic ew91onbhc3m6d29yza==\r\n"));
    assert!(server.last().contains("user-agent: nomad-firehose/"));
    assert!(server.last().contains("accept-encoding: gzip\r\n"));

    let token = ("NOMAD_TOKEN", "8ed1f9a3");
    let nomad = endpoint(connect::nomad, [("NOMAD_ADDR", &named), auth, token]);
    get(&nomad).await.unwrap();
    assert!(server.last().starts_with("get /v1/status/leader "), "{}", server.last());
    assert!(server.last().contains("authorization: basic bwu6cebzcw==\r\n"), "{}", server.last());
    assert!(server.last().contains("x-nomad-token: 8ed1f9a3\r\n"));
    let shown = format!("{} {} {nomad:?} {:?}", nomad.base, nomad.shown, nomad.credentials);
    assert!(!shown.contains("ss@") && !shown.contains("8ed1f9a3"), "{shown}");
}

#[tokio::test]
async fn a_token_file_is_followed_and_its_last_token_outlives_it() {
    let server = Server::http(OK).await;
    let address = format!("127.0.0.1:{}", server.port);
    let files = TempDir::new().unwrap();
    let path = files.path().join("token");
    let vars = [
        ("CONSUL_HTTP_ADDR", &*address),
        ("CONSUL_HTTP_TOKEN", "fixed"),
        ("CONSUL_HTTP_TOKEN_FILE", path.to_str().unwrap()),
    ];
    // An empty file leaves it at the token in the environment, until there is one in the file.
    fs::write(&path, "").unwrap();
    let consul = endpoint(connect::consul, vars);
    for (text, expected) in [
        (Some(""), "fixed"),
        (Some("one-1\n"), "one-1"),
        (Some("two-2\n"), "two-2"),
        (Some(""), "two-2"),
        (None, "two-2"),
        (Some("bad\u{1}token"), "two-2"),
        (Some("three"), "three"),
    ] {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        get(&consul).await.unwrap();
        let token = format!("x-consul-token: {expected}\r\n");
        assert!(server.last().contains(&token), "{text:?}: {}", server.last());
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_so_that_the_token_goes_nowhere_else() {
    let moved = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\
                 connection: close\r\n\r\n";
    let server = Server::http(moved).await;
    let url = format!("http://127.0.0.1:{}", server.port);
    assert_eq!(get(&endpoint(connect::nomad, [("NOMAD_ADDR", &url)])).await, Ok(307));
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn a_proxy_is_used_except_for_this_machine() {
    let proxy = Server::http(OK).await;
    let via = format!("127.0.0.1:{}", proxy.port);
    let far = ("NOMAD_ADDR", "http://nomad.example:4646");
    get(&endpoint(connect::nomad, [far, ("http_proxy", &via)])).await.unwrap();
    assert!(proxy.last().starts_with("get http://nomad.example:4646/v1/status/leader "));

    let near = Server::http(OK).await;
    let url = format!("http://localhost:{}", near.port);
    get(&endpoint(connect::nomad, [("NOMAD_ADDR", &url), ("HTTP_PROXY", &via)])).await.unwrap();
    assert_eq!((proxy.served(), near.served()), (1, 1));
}

#[test]
fn addresses_have_the_forms_and_defaults_of_the_official_clients() {
    assert_eq!(endpoint(connect::nomad, []).base, "http://127.0.0.1:4646");
    assert_eq!(endpoint(connect::consul, []).base, "http://127.0.0.1:8500");
    for (address, ssl, base) in [
        ("consul:8500", "0", "http://consul:8500"),
        ("consul:8500", "1", "https://consul:8500"),
        ("http://consul:8500", "1", "https://consul:8500"),
        ("https://consul:8501", "0", "https://consul:8501"),
        ("consul", "0", "http://consul"),
        ("[::1]:8500", "0", "http://[::1]:8500"),
        ("http://gateway/consul/", "0", "http://gateway/consul"),
    ] {
        let vars = [
            ("CONSUL_HTTP_ADDR", address),
            ("CONSUL_HTTP_SSL", ssl),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        assert_eq!(endpoint(connect::consul, vars).base, base, "{address}, {ssl}");
    }
    let env = Env::from([("CONSUL_NAMESPACE", "ops"), ("NOMAD_REGION", "eu")]);
    let scope = ConsulScope { namespace: Some("ops".to_owned()), partition: None };
    assert_eq!(connect::consul_scope(&env), Ok(scope));
    assert_eq!(connect::nomad_region(&env), Ok(Some("eu".to_owned())));
}

#[test]
fn an_address_that_cannot_be_used_is_a_problem_that_shows_the_right_form() {
    for (address, said) in [
        ("10.0.0.1:4646", "has no scheme; write http://10.0.0.1:4646 or https://10.0.0.1:4646"),
        ("ftp://10.0.0.1", "is neither http, https nor unix"),
        ("unix://", "write unix:///path/to/the.sock"),
        ("http://", "empty host"),
        ("http://me:hunter2@10.0.0.1:port", "`http://***@10.0.0.1:port`: invalid port number"),
        ("me:hunter2@10.0.0.1:4646", "write http://***@10.0.0.1:4646"),
    ] {
        let problems = problems(connect::nomad, [("NOMAD_ADDR", address)]).join("\n");
        assert!(problems.contains(said) && !problems.contains("hunter2"), "{problems}");
    }
    let vars = [("CONSUL_HTTP_ADDR", "unix:///run/consul.sock"), ("CONSUL_HTTP_SSL", "1")];
    assert!(problems(connect::consul, vars)[0].starts_with("CONSUL_HTTP_SSL: is on, but"));
}

#[test]
fn every_file_and_switch_is_checked_even_for_an_address_without_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let garbage = ours.file("garbage");
    fs::write(&garbage, "not PEM").unwrap();
    let vars = [
        ("CONSUL_HTTP_ADDR", "http://127.0.0.1:8500"),
        ("CONSUL_HTTP_SSL", "on"),
        ("CONSUL_HTTP_SSL_VERIFY", "nope"),
        ("CONSUL_CACERT", &garbage),
        ("CONSUL_CLIENT_CERT", "/missing.pem"),
        ("CONSUL_CLIENT_KEY", &garbage),
        ("CONSUL_TLS_SERVER_NAME", "10.0.0.1"),
        ("CONSUL_HTTP_TOKEN", "two\nlines"),
        ("CONSUL_HTTP_TOKEN_FILE", "/missing"),
        ("HTTPS_PROXY", "socks5://127.0.0.1"),
    ];
    let missing = "No such file or directory (os error 2)";
    assert_eq!(
        problems(connect::consul, vars),
        [
            "CONSUL_HTTP_SSL_VERIFY: `nope`: neither true nor false".to_owned(),
            format!("CONSUL_CACERT: no PEM certificate in {garbage}"),
            format!("CONSUL_CLIENT_CERT: cannot read /missing.pem: {missing}"),
            format!("CONSUL_CLIENT_KEY: no PEM private key without a passphrase in {garbage}"),
            "CONSUL_TLS_SERVER_NAME: `10.0.0.1` is not a DNS name such as server.global.nomad"
                .to_owned(),
            "CONSUL_HTTP_TOKEN: cannot use the token: it holds characters that no header can \
             carry, such as a line break"
                .to_owned(),
            format!("CONSUL_HTTP_TOKEN_FILE: cannot use the token in /missing: {missing}"),
            "HTTPS_PROXY: `socks5://127.0.0.1` is neither http nor https".to_owned(),
            "CONSUL_HTTP_SSL: `on`: neither true nor false".to_owned(),
        ]
    );

    let alone = problems(connect::nomad, [("NOMAD_CLIENT_CERT", &ours.file("cert.pem"))]);
    assert_eq!(
        alone,
        ["NOMAD_CLIENT_KEY: is not set, and NOMAD_CLIENT_CERT is: set both or neither"]
    );
    let (cert, key) = (ours.file("cert.pem"), theirs.file("key.pem"));
    let strangers = [("NOMAD_CLIENT_CERT", &*cert), ("NOMAD_CLIENT_KEY", &*key)];
    let said = problems(connect::nomad, strangers);
    assert!(said[0].starts_with(&format!("NOMAD_CLIENT_KEY: cannot use {key}: ")), "{said:?}");
}
