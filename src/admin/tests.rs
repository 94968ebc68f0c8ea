use super::*;

fn pages() -> Pages {
    let identity = Identity { stream: "nodes", sink: "stdout".into(), leader: "solo".into() };
    Pages { metrics: Arc::default(), identity }
}

#[test]
fn addresses_are_read_as_go_writes_them() {
    let read = |text: &str| text.parse::<Address>().map(|it| it.to_string());
    assert_eq!(read(":9990").unwrap(), "0.0.0.0:9990");
    assert_eq!(read("127.0.0.1:80").unwrap(), "127.0.0.1:80");
    assert_eq!(read("[::]:9990").unwrap(), "[::]:9990");
    for bad in
        ["", "9990", ":", ":+1", ":65536", "localhost", "a b:1", "127.0.0.1", "http://127.0.0.1:1"]
    {
        assert_eq!(read(bad), Err(AddressError), "{bad}");
    }
}

#[test]
fn there_are_three_pages_for_two_methods() {
    let pages = pages();
    let status = |method, path| pages.answer(&method, path).status().as_u16();
    assert_eq!(status(Method::GET, "/metrics"), 200);
    assert_eq!(status(Method::HEAD, "/live"), 200);
    assert_eq!(status(Method::GET, "/ready"), 503);
    for path in ["/", "/metrics/", "/ready2", "//live"] {
        assert_eq!(status(Method::GET, path), 404, "{path}");
    }
    let refused = pages.answer(&Method::POST, "/ready");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    let kind = |path| pages.answer(&Method::GET, path).headers()["content-type"].clone();
    assert_eq!(kind("/metrics"), PROMETHEUS);
    assert_eq!(kind("/ready"), JSON);
}
