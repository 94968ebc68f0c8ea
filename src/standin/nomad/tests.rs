use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;

const NODE: &str = "ccde500a-4cd3-6f7e-fae4-8e14ae2c138d";

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(router: Router, request: Request) -> Result<Got, axum::Error> {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await?.to_vec();
    Ok(Got { status: parts.status, headers: parts.headers, body })
}

async fn get(nomad: &Nomad, path: &str) -> Got {
    send(nomad.router(), Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

async fn get_with(nomad: &Nomad, path: &str, header: (&str, &str)) -> Got {
    let request = Request::get(path).header(header.0, header.1).body(Body::empty()).unwrap();
    send(nomad.router(), request).await.unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn allocation(id: &str) -> Map<String, Value> {
    object(json!({ "ID": id, "Namespace": "default", "TaskStates": null }))
}

fn job(namespace: &str, id: &str) -> Map<String, Value> {
    object(
        json!({ "ID": id, "Namespace": namespace, "Version": 0, "Periodic": null, "TaskGroups": [] }),
    )
}

#[tokio::test]
async fn a_fresh_cluster_has_index_0_and_empty_lists() {
    let nomad = Nomad::new(Version::V1_0);
    for list in ["allocations", "evaluations", "jobs", "deployments", "nodes"] {
        let got = get(&nomad, &format!("/v1/{list}")).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "[]"));
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        assert_eq!(got.header("x-nomad-index"), Some("0"));
        assert_eq!(got.header("x-nomad-knownleader"), Some("true"));
        assert_eq!(got.header("x-nomad-lastcontact"), Some("0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_list_wakes_when_its_table_changes_and_not_before() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Allocations, allocation("a"));
    let begin = Instant::now();
    let change = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        nomad.upsert(Table::Evaluations, allocation("e"));
        tokio::time::sleep(Duration::from_secs(20)).await;
        nomad.upsert(Table::Allocations, allocation("b"))
    };
    let (got, index) = tokio::join!(get(&nomad, "/v1/allocations?index=2&wait=5m"), change);
    assert_eq!(begin.elapsed(), Duration::from_secs(40));
    assert_eq!(got.header("x-nomad-index"), Some(index.to_string().as_str()));
    assert_eq!(got.json()[1]["ModifyIndex"], json!(index));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_present_list_and_its_lower_index() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Allocations, allocation("a"));
    let begin = Instant::now();
    let got = get(&nomad, "/v1/allocations?index=999999&wait=20m").await;
    assert_eq!(
        (begin.elapsed(), got.header("x-nomad-index")),
        (Duration::from_secs(300), Some("2"))
    );
}

#[tokio::test]
async fn errors_have_the_words_of_the_server() {
    let nomad = Nomad::new(Version::V1_0);
    for (path, status, text) in [
        ("/v1/allocations?index=abc", 400, "Invalid index"),
        ("/v1/allocations?wait=abc", 400, "Invalid wait time"),
        ("/v1/job/nosuch", 404, "job not found"),
        ("/v1/node/00000000-0000-0000-0000-000000000000", 404, "node not found"),
        ("/v1/node/xyz", 500, "node lookup failed: index error: UUID must be 36 characters"),
    ] {
        let got = get(&nomad, path).await;
        assert_eq!((got.status.as_u16(), got.text()), (status, text), "{path}");
        assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(got.headers.contains_key("x-nomad-index"), status == 404, "{path}");
    }
    let got = get(&nomad, "/v1/nosuch").await;
    assert_eq!((got.status.as_u16(), got.text(), got.header("content-type")), (404, "", None));
    let request = Request::delete("/v1/allocations").body(Body::empty()).unwrap();
    let got = send(nomad.router(), request).await.unwrap();
    assert_eq!((got.status.as_u16(), got.text()), (405, "Invalid method"));
}

#[tokio::test]
async fn the_job_list_follows_the_summaries_while_the_job_stays() {
    let nomad = Nomad::new(Version::V1_0);
    nomad.upsert(Table::Jobs, job("ops", "team/app-ümläut"));
    let index = nomad.set_summary("ops", "team/app-ümläut", object(json!({ "Summary": {} })));
    let got = get(&nomad, "/v1/jobs?namespace=*").await;
    assert_eq!(got.header("x-nomad-index"), Some(index.to_string().as_str()));
    let stub = &got.json()[0];
    assert_eq!(
        (&stub["ModifyIndex"], &stub["JobSummary"]["ModifyIndex"]),
        (&json!(2), &json!(index))
    );
    assert_eq!((&stub["Namespace"], &stub["Periodic"]), (&json!("ops"), &json!(false)));
    assert_eq!(get(&nomad, "/v1/jobs?namespace=ops").await.json()[0]["Namespace"], json!(""));
    let got = get(&nomad, "/v1/job/team%2Fapp-%C3%BCml%C3%A4ut?namespace=ops").await;
    assert_eq!(
        (got.header("x-nomad-index"), &got.json()["JobModifyIndex"]),
        (Some("2"), &json!(2))
    );
    assert_eq!(
        get(&nomad, "/v1/job/team%2Fapp-%C3%BCml%C3%A4ut").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn the_old_server_takes_the_wildcard_for_a_name() {
    for (version, shown) in [(Version::V1_0, 0), (Version::V2_0, 1)] {
        let nomad = Nomad::new(version);
        nomad.upsert(Table::Evaluations, allocation("e"));
        nomad.serve_recorded(Table::Deployments, Bytes::from_static(b"[{\"ID\":\"d\"}]"), 7);
        for list in ["evaluations", "deployments"] {
            let got = get(&nomad, &format!("/v1/{list}?namespace=*")).await.json();
            assert_eq!(got.as_array().unwrap().len(), shown, "{list}");
        }
    }
}

#[tokio::test]
async fn a_token_is_refused_in_the_words_of_the_version() {
    let old = Nomad::new(Version::V1_0);
    let new = Nomad::new(Version::V2_0);
    old.require_token(Some(NODE.to_owned()));
    new.require_token(Some(NODE.to_owned()));
    let list = "/v1/allocations?namespace=*";
    assert_eq!(get(&old, list).await.text(), "[]");
    assert_eq!(get(&new, list).await.text(), "Permission denied");
    let unknown = ("x-nomad-token", "00000000-0000-0000-0000-000000000000");
    assert_eq!(get_with(&old, list, unknown).await.text(), "ACL token not found");
    assert_eq!(get_with(&new, list, unknown).await.text(), "Permission denied");
    assert_eq!(get_with(&old, list, ("x-nomad-token", "zzz")).await.status.as_u16(), 500);
    assert_eq!(get_with(&new, list, ("x-nomad-token", "zzz")).await.status.as_u16(), 403);
    assert_eq!(get_with(&old, "/v1/nodes", ("x-nomad-token", NODE)).await.status.as_u16(), 200);
    let bearer = format!("Bearer {NODE}");
    assert_eq!(get_with(&old, "/v1/nodes", ("authorization", &bearer)).await.status.as_u16(), 403);
    assert_eq!(get_with(&new, "/v1/nodes", ("authorization", &bearer)).await.status.as_u16(), 200);
}

#[tokio::test]
async fn an_agent_says_its_version_to_those_who_may_know() {
    for (version, text) in [(Version::V1_0, "1.0.18"), (Version::V2_0, "2.0.5")] {
        let nomad = Nomad::new(version);
        let got = get(&nomad, "/v1/agent/self").await;
        assert_eq!(got.json()["config"]["Version"]["Version"], text);
        assert_eq!(got.json()["member"]["Tags"]["build"], text);
        assert_eq!(got.header("x-nomad-index"), None);
        nomad.require_token(Some(NODE.to_owned()));
        let got = get(&nomad, "/v1/agent/self").await;
        assert_eq!((got.status.as_u16(), got.text()), (403, "Permission denied"));
    }
}

#[tokio::test]
async fn a_restored_server_shows_lower_indexes_until_it_is_written_again() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Allocations, allocation("a"));
    let snapshot = nomad.snapshot();
    nomad.upsert(Table::Allocations, allocation("b"));
    nomad.restore(&snapshot);
    assert_eq!(get(&nomad, "/v1/allocations").await.header("x-nomad-index"), Some("2"));
    assert_eq!(nomad.upsert(Table::Allocations, allocation("c")), 4);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hangs_answers_only_those_who_allow_it() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Allocations, allocation("a"));
    nomad.lag(Some(nomad.snapshot()));
    nomad.upsert(Table::Allocations, allocation("b"));
    assert_eq!(get(&nomad, "/v1/allocations").await.header("x-nomad-index"), Some("3"));
    assert_eq!(get(&nomad, "/v1/allocations?stale=true").await.header("x-nomad-index"), Some("2"));
    let begin = Instant::now();
    let got = get(&nomad, "/v1/allocations?stale=&index=2&wait=9s").await;
    assert_eq!((begin.elapsed(), got.header("x-nomad-index")), (Duration::from_secs(9), Some("2")));
}

#[tokio::test]
async fn a_generated_list_is_whole_and_compressed_on_demand() {
    let nomad = Nomad::new(Version::V2_0);
    let element = |number| Bytes::from(json!({ "ID": format!("{number:036}") }).to_string());
    nomad.serve_generated(Table::Allocations, 9, move || (0..5000).map(element));
    let got = get(&nomad, "/v1/allocations").await;
    assert_eq!(got.json().as_array().unwrap().len(), 5000);
    assert!(!got.headers.contains_key(header::CONTENT_ENCODING));
    let packed = get_with(&nomad, "/v1/allocations", ("accept-encoding", "gzip")).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("vary"), Some("Accept-Encoding"));
    assert!(packed.body.len() < got.body.len() / 5);
}

#[tokio::test(start_paused = true)]
async fn each_fault_hits_the_next_request_that_it_is_meant_for() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Jobs, job("default", "j"));
    let older = nomad.snapshot();
    nomad.upsert(Table::Jobs, job("default", "k"));
    nomad.script("/v1/jobs", Fault::status(429, "slow down"));
    nomad.script("GET /v1/jobs", Fault::Lagging(older));
    nomad.script("/v1/jobs", Fault::GarbledIndex("x".to_owned()));
    nomad.script("/v1/jobs", Fault::NoIndex);
    nomad.script("/v1/jobs", Fault::EmptyDying);
    nomad.script("/v1/jobs", Fault::Delay(Duration::from_secs(7)));
    nomad.script("/v1/jobs", Fault::CutBody { after_bytes: 5 });
    assert_eq!(get(&nomad, "/v1/allocations").await.status, StatusCode::OK);
    assert_eq!(get(&nomad, "/v1/jobs").await.text(), "slow down");
    let got = get(&nomad, "/v1/jobs?index=3").await;
    assert_eq!((got.header("x-nomad-index"), got.json().as_array().unwrap().len()), (Some("2"), 1));
    assert_eq!(get(&nomad, "/v1/jobs").await.header("x-nomad-index"), Some("x"));
    assert_eq!(get(&nomad, "/v1/jobs").await.header("x-nomad-index"), None);
    let got = get(&nomad, "/v1/jobs").await;
    assert_eq!((got.text(), got.header("x-nomad-knownleader")), ("[]", Some("false")));
    let begin = Instant::now();
    assert_eq!(get(&nomad, "/v1/jobs").await.json().as_array().unwrap().len(), 2);
    assert_eq!(begin.elapsed(), Duration::from_secs(7));
    let request = Request::get("/v1/jobs").body(Body::empty()).unwrap();
    assert!(send(nomad.router(), request).await.is_err());
    assert_eq!(nomad.faults_left(), 0);
    assert_eq!(nomad.requests().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_partition_swallows_requests_and_the_answers_to_those_under_way() {
    let nomad = Nomad::new(Version::V2_0);
    let under_way =
        tokio::time::timeout(Duration::from_secs(60), get(&nomad, "/v1/jobs?index=1&wait=10s"));
    let cut_off = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        nomad.partition(true);
    };
    assert!(tokio::join!(under_way, cut_off).0.is_err());
    nomad.partition(false);
    assert_eq!(get(&nomad, "/v1/jobs").await.status, StatusCode::OK);
}

#[tokio::test]
async fn over_tcp_headers_have_the_case_that_go_gives_them_and_a_cut_body_ends_early() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Nodes, object(json!({ "ID": NODE, "HTTPAddr": "10.0.0.1:4646" })));
    let listener = crate::standin::serve::bind().await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = crate::standin::serve::serve(nomad.router(), listener, async {
        let _ = stopped.await;
    });
    let client = async {
        let ask = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let whole = ask().await;
        nomad.script("/v1/nodes", Fault::CutBody { after_bytes: 9 });
        let cut = ask().await;
        stop.send(()).unwrap();
        (whole, cut)
    };
    let (served, (whole, cut)) = tokio::join!(server, client);
    served.unwrap();
    for line in
        ["X-Nomad-Index: 2\r\n", "X-Nomad-Knownleader: true\r\n", "X-Nomad-Lastcontact: 0\r\n"]
    {
        assert!(whole.contains(line), "{whole}");
    }
    assert!(whole.contains("\"Address\":\"10.0.0.1\"") && whole.ends_with(']'), "{whole}");
    assert!(cut.ends_with("9\r\n[{\"Addres\r\n"), "{cut:?}");
}
