//! No secret is in anything that a process writes, whatever goes well or wrong.

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use nomad_firehose::{
    env::{DOCUMENTED, Env},
    standin::Fault,
    telemetry::{Layout, Logs},
};
use tempfile::TempDir;

use super::{
    World,
    firehose::{CONFIGURATION, FAILED, Finished, Program},
    logs::{FORMATS, entries},
};
use crate::{connecting::servers::Authority, sinks::web::Web, tidy::variables_read};

mod variables;

use variables::{
    HARMLESS, HARMLESS_SWITCHES,
    Holds::{Address, Directory, File, Header, HeaderFile, Key, Login, Query, Value},
    NEEDED, SECRETS, scheme, sink_of, sinks,
};

#[test]
fn every_variable_either_has_a_secret_planted_or_can_hold_none() {
    let read = variables_read();
    let all = DOCUMENTED.iter().map(|it| (*it).to_owned()).chain(read.clone());
    for name in all {
        let is_secret = SECRETS.iter().any(|(it, _)| *it == name);
        let mut harmless = HARMLESS.iter().chain(HARMLESS_SWITCHES);
        let is_harmless = harmless.any(|it| name.ends_with(it));
        assert!(is_secret != is_harmless, "{name}: plant a secret in it, or say that it has none");
    }
    let ours = |name: &str| ["NOMAD_", "CONSUL_", "SINK_"].iter().any(|it| name.starts_with(it));
    for (name, _) in SECRETS.iter().filter(|(name, _)| ours(name)) {
        assert!(read.iter().any(|it| it == name), "nobody reads {name}");
    }
}

/// Where everything is, each as `host:port`.
struct Places {
    scheme: &'static str,
    nomad: String,
    consul: String,
    http: String,
    amqp: String,
}

/// A secret in every variable that can hold one, each another, and the files for those in files.
struct Planted {
    files: TempDir,
    authority: Authority,
    /// How the log is written.
    format: &'static str,
}

fn secret(name: &str) -> String {
    format!("planted-{}", name.to_lowercase().replace('_', "-"))
}

impl Planted {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        Self { files, authority: Authority::new(), format: "text" }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Sets all of them but those of which `skip` is true.
    fn set(&self, mut program: Program, at: &Places, skip: impl Fn(&str) -> bool) -> Program {
        for (name, holds) in SECRETS.iter().filter(|(name, _)| !skip(name)) {
            let (secret, scheme) = (secret(name), scheme(name, at.scheme));
            let place = match *name {
                "NOMAD_ADDR" => &at.nomad,
                "CONSUL_HTTP_ADDR" => &at.consul,
                "SINK_AMQP_CONNECTION" => &at.amqp,
                _ => &at.http,
            };
            let value = match holds {
                Value => secret,
                Login => format!("me:{secret}"),
                Address => format!("{scheme}://me:{secret}@{place}"),
                Query => format!("{scheme}://{place}/in?key={secret}"),
                File => self.file(name, &secret),
                Header => format!("X-Key: {secret}"),
                HeaderFile => self.file(name, &format!("X-Key: {secret}\n")),
                Directory => {
                    let file = self.file("secrets/nomad_token", &secret);
                    Path::new(&file).parent().unwrap().display().to_string()
                }
                Key => {
                    program =
                        program.set(&name.replace("KEY", "CERT"), self.authority.file("cert.pem"));
                    self.authority.file("key.pem")
                }
            };
            program = program.set(name, value);
        }
        for (name, value) in NEEDED {
            program = program.set(name, value.unwrap_or(&at.http));
        }
        program
            .set("LOG_LEVEL", "trace")
            .set("NOMAD_FIREHOSE_LISTEN", "127.0.0.1:0")
            .set("LOG_FORMAT", self.format)
            .set("AWS_REGION", "eu-west-1")
            .set("AWS_ENDPOINT_URL", format!("http://{}", at.http))
    }

    fn assert_silent(&self, what: &str, finished: &Finished) {
        let text = format!("{}{}", finished.out, finished.log);
        for (name, _) in SECRETS {
            let secret = secret(name);
            let basic = BASE64_STANDARD.encode(format!("me:{secret}"));
            for secret in [&secret, basic.trim_end_matches('=')] {
                assert!(!text.contains(secret), "{what}: the secret of {name} is in:\n{text}");
            }
        }
        let key = fs::read_to_string(self.authority.file("key.pem")).unwrap();
        for line in key.lines() {
            assert!(!text.contains(line), "{what}: a key is in:\n{text}");
        }
    }
}

impl World {
    fn places(&self, http: u16) -> Places {
        let bare = |it: &str| it.trim_start_matches("http://").to_owned();
        let http = format!("127.0.0.1:{http}");
        let (nomad, consul) = (bare(&self.nomad_port.address), bare(&self.consul_port.address));
        Places { scheme: "http", nomad, consul, amqp: http.clone(), http }
    }
}

/// Nobody listens there.
fn nowhere(scheme: &'static str) -> Places {
    let [nomad, consul, http, amqp] = [const { "127.0.0.1:9" }; 4].map(str::to_owned);
    Places { scheme, nomad, consul, http, amqp }
}

fn program(sink: &str) -> Program {
    Program::stream("nodes").set("SINK_TYPE", sink)
}

/// Which variables are not set.
type Skip = fn(&str) -> bool;

/// As by hand: the files are not set, which would go before the variables.
fn is_file(name: &str) -> bool {
    name.ends_with("_FILE") || name == "NOMAD_SECRETS_DIR"
}

/// Those in the environment are not set, and of the files only the identity of a task, or not.
fn is_not_file(name: &str) -> bool {
    let fixed = ["NOMAD_TOKEN", "CONSUL_HTTP_TOKEN", "SINK_HTTP_TOKEN", "SINK_HTTP_HEADERS"];
    let secrets = ["SINK_HTTP_HMAC_SECRET", "SINK_NSQ_AUTH_SECRET"];
    fixed.contains(&name) || secrets.contains(&name) || name == "NOMAD_FIREHOSE_TOKEN_FILE"
}

#[tokio::test]
async fn secrets_are_not_in_a_log_that_says_everything_of_a_run_that_goes_well() {
    let ways: [(Skip, &str, &str); 2] = [
        (is_file, "NOMAD_TOKEN", "CONSUL_HTTP_TOKEN"),
        (is_not_file, "NOMAD_SECRETS_DIR", "CONSUL_HTTP_TOKEN_FILE"),
    ];
    for ((skip, nomad_token, consul_token), format) in
        ways.into_iter().flat_map(|way| FORMATS.map(|format| (way, format)))
    {
        let (world, web) = (World::with(3).await, Web::start().await);
        let planted = Planted { format, ..Planted::new() };
        world.nomad.require_token(Some(secret(nomad_token)));
        world.consul.require_token(Some(secret(consul_token)));
        let token =
            if nomad_token == "NOMAD_TOKEN" { "SINK_HTTP_TOKEN" } else { "SINK_HTTP_TOKEN_FILE" };
        web.demand(&format!("Bearer {}", secret(token)));
        let running = planted.set(program("http"), &world.places(web.port()), skip).start();
        web.asked(3).await;
        let pages = running.pages().await;
        let finished = running.stop().await;
        planted.assert_silent("a page", &Finished { out: pages, ..Finished::default() });
        assert!(finished.log.contains("stopped"));
        planted.assert_silent("a run", &finished);
        web.always(Some(204));
        let checked = planted.set(program("http"), &world.places(web.port()), skip);
        let checked = checked.arguments(&["--check"]).run().await;
        assert_eq!(checked.code, Some(0), "{}", checked.out);
        planted.assert_silent("a check", &checked);
    }
}

#[tokio::test]
async fn secrets_are_not_in_what_is_said_of_servers_that_deny_fail_or_are_not_there() {
    for format in FORMATS {
        let (world, planted) = (World::with(1).await, Planted { format, ..Planted::new() });
        world.nomad.require_token(Some("another".into()));
        world.consul.require_token(Some("another".into()));
        let running = planted.set(program("stdout"), &world.places(9), is_file).start();
        running.logs("403").await;
        let pages = running.pages().await;
        assert!(pages.contains("403"), "no reason is in {pages}");
        planted.assert_silent("a page", &Finished { out: pages, ..Finished::default() });
        planted.assert_silent("a run without permission", &running.stop().await);

        let world = World::with(1).await;
        for _ in 0..3 {
            world.consul.script("/v1/session/create", Fault::status(500, "No cluster leader"));
            world.nomad.script("/v1/nodes", Fault::Redirect("http://127.0.0.1:9/elsewhere".into()));
        }
        let running = planted.set(program("stdout"), &world.places(9), is_file).start();
        running.publishes(1).await;
        let finished = running.stop().await;
        assert!(finished.log.contains("No cluster leader"), "{}", finished.log);
        planted.assert_silent("a run with failing servers", &finished);
    }

    // Nobody is there, and whoever is there does not speak TLS.
    let world = World::with(1).await;
    let mut planted = Planted::new();
    let no_tls = Places { scheme: "https", ..world.places(9) };
    for (what, at) in [("nobody", nowhere("http")), ("no TLS", nowhere("https")), ("plain", no_tls)]
    {
        for (sink, format) in sinks().zip(FORMATS[1..].iter().cycle()) {
            planted.format = format;
            // NATS wants to know who we are in one way only.
            let skip = |it: &str| is_file(it) || it == "SINK_NATS_TOKEN";
            let checked = planted.set(program(sink), &at, skip).arguments(&["--check"]);
            let checked = checked.run().await;
            assert_eq!(checked.code, Some(FAILED), "{}{}", checked.out, checked.log);
            planted.assert_silent(&format!("a check of {sink} with {what}"), &checked);
        }
    }
}

#[tokio::test]
async fn secrets_are_not_in_what_is_said_of_values_that_cannot_be_used() {
    let mut planted = Planted::new();
    let mut formats = FORMATS.into_iter().cycle();
    for (name, holds) in SECRETS.iter().filter(|(name, _)| !name.starts_with("AWS_")) {
        let secret = secret(name);
        let ways = [
            format!("{secret}\n{secret}"),
            format!("ftp://me:{secret}@127.0.0.1:port"),
            format!("me:{secret}@127.0.0.1:1"),
            format!("http://me:{secret}@[127.0.0.1"),
        ];
        // A file is named by what is meant to be in it only where somebody mixes up two variables.
        let in_file = is_file(name) || name.ends_with("_KEY");
        // In an address a secret is only what is where passwords are.
        let ways = ways.into_iter().skip(usize::from([Address, Query].contains(holds)));
        for way in ways {
            planted.format = formats.next().unwrap();
            let value = if in_file { planted.file("bad", &format!("\u{1}{way}")) } else { way };
            let sink = sink_of(name);
            let set = planted.set(program(sink), &nowhere("http"), |it| is_file(it) || it == *name);
            let finished = set.set(name, &value).arguments(&["--check"]).run().await;
            assert!([Some(CONFIGURATION), Some(FAILED)].contains(&finished.code), "{finished:?}");
            planted.assert_silent(&format!("{name} that is malformed"), &finished);
        }
    }
}

/// Started by the test below, in a process of its own, as `std` has no other way to panic safely.
#[test]
fn a_panic_with_a_secret() {
    let Ok(format) = std::env::var("FIREHOSE_TEST_PANIC") else { return };
    let env = Env::default();
    let layout = Layout::from_env(&env, "nodes", Some(format));
    let _started = Logs::from_env(&env, None, layout).unwrap().start();
    nomad_firehose::run::end_on_panic();
    // A panic that one cannot see coming shows what was worked on.
    let worked_on = format!("{}\u{fc}", secret("NOMAD_TOKEN"));
    let middle = std::hint::black_box(worked_on.len() - 1);
    let _ = std::thread::spawn(move || worked_on[..middle].len()).join();
    eprintln!("still alive");
}

#[test]
fn a_panic_anywhere_ends_the_process_and_says_where_it_was_and_nothing_else() {
    let name = "process::secrets::a_panic_with_a_secret";
    for format in FORMATS {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("FIREHOSE_TEST_PANIC", format)
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let text = format!("{}{log}", String::from_utf8_lossy(&output.stdout));
        assert!(!output.status.success() && !text.contains("still alive"), "{text}");
        let [entry] = &entries(format, &log)[..] else { panic!("{format}: {text}") };
        assert!(entry.message.starts_with("a defect in this program ends it"), "{text}");
        assert!(entry.text.contains("secrets.rs:") && entry.level == "error", "{text}");
        assert!(!text.contains("planted"), "{text}");
    }
}
