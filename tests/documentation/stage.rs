//! Where the commands of a page are run: a directory laid out as the root of a clone, with the
//! programs on `PATH`, servers in place of the addresses that pages have, and a `cargo` that builds
//! nothing.

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::pages::root;

/// The programs of the package.
pub const PROGRAMS: [(&str, &str); 8] = [
    ("firehose-allocations", env!("CARGO_BIN_EXE_firehose-allocations")),
    ("firehose-demo", env!("CARGO_BIN_EXE_firehose-demo")),
    ("firehose-deployments", env!("CARGO_BIN_EXE_firehose-deployments")),
    ("firehose-evaluations", env!("CARGO_BIN_EXE_firehose-evaluations")),
    ("firehose-jobliststubs", env!("CARGO_BIN_EXE_firehose-jobliststubs")),
    ("firehose-jobs", env!("CARGO_BIN_EXE_firehose-jobs")),
    ("firehose-nodes", env!("CARGO_BIN_EXE_firehose-nodes")),
    ("nomad-firehose", env!("CARGO_BIN_EXE_nomad-firehose")),
];
/// Directories with scripts that would build, fetch or test; they are played by one that looks
/// at its arguments.
const SCRIPTS: [&str; 3] = [".ci", "benches", "tools"];
/// What changes the machine, or needs more than it has to have. Who documents it says so in an
/// annotation, and until then it is refused here.
const REFUSED: [&str; 13] = [
    "apt-get",
    "chown",
    "docker",
    "dpkg",
    "groupadd",
    "install",
    "kubectl",
    "nomad",
    "podman",
    "rabbitmqctl",
    "sudo",
    "systemctl",
    "useradd",
];
/// Far more than any block takes.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const REFUSAL: &str = "this is not run here: the block lacks an annotation, see CONTRIBUTING.md";
/// Where pages have secrets.
const SECRETS: &str = "/run/secrets/";
/// What stands for an address that has been replaced, until all are.
const MARK: char = '\u{1}';

/// A directory with what pages need, and what stands for their addresses.
pub struct Stage {
    dir: TempDir,
    /// Text of pages, and what is put in its place; the first that fits counts.
    places: Vec<(String, String)>,
    ports: HashMap<String, u16>,
}

/// What became of a block.
pub struct Outcome {
    pub code: Option<i32>,
    /// What it wrote, to either output.
    pub output: String,
    /// Where it was run.
    pub directory: PathBuf,
    /// What it has exported, if it got that far.
    pub environment: Vec<(String, String)>,
    /// What it asked `cargo` for.
    pub cargo: Vec<String>,
}

impl Stage {
    /// A directory in which `places` stand for what pages have.
    pub fn new(places: Vec<(String, String)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stage = Self { dir, places, ports: HashMap::new() };
        for name in ["bin", "root", "secrets"] {
            fs::create_dir(stage.path(name)).unwrap();
        }
        let clone = stage.path("root");
        for entry in fs::read_dir(root()).unwrap() {
            let (path, name) = entry.map(|it| (it.path(), it.file_name())).unwrap();
            let name = name.to_str().unwrap();
            match name {
                "target" | ".git" => {}
                name if SCRIPTS.contains(&name) => stage.play_scripts(&path, &clone.join(name)),
                name => symlink(&path, clone.join(name)).unwrap(),
            }
        }
        for profile in ["debug", "release"] {
            fs::create_dir_all(clone.join("target").join(profile)).unwrap();
        }
        for (name, path) in PROGRAMS {
            let text = include_str!("program.bash").replace("@PROGRAM@", path);
            stage.executable(&stage.path("bin").join(name), &text);
            for profile in ["debug", "release"] {
                let link = clone.join("target").join(profile).join(name);
                symlink(stage.path("bin").join(name), link).unwrap();
            }
        }
        for name in REFUSED {
            stage.program(name, &format!("#!/bin/sh\necho {REFUSAL} >&2\nexit 96\n"));
        }
        stage.program("cargo", include_str!("cargo.bash"));
        fs::write(stage.path("received"), "").unwrap();
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another process writes it: while this one had it open, what another test starts at that
    /// moment would have it too, and then it could not be run.
    fn executable(&self, path: &Path, text: &str) {
        let text = text.replace("@STAGE@", self.dir.path().to_str().unwrap());
        let plain = self.path("text");
        fs::write(&plain, text).unwrap();
        let install = Command::new("install").args(["-m", "755"]).args([&plain, path]).status();
        assert!(install.unwrap().success(), "{}", path.display());
    }

    /// A program of this name on `PATH`.
    pub fn program(&self, name: &str, text: &str) {
        self.executable(&self.path("bin").join(name), text);
    }

    fn play_scripts(&self, from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let link = to.join(path.file_name().unwrap());
            if path.is_file() && path.metadata().unwrap().permissions().mode() & 0o111 != 0 {
                let text = include_str!("script.bash").replace("@SCRIPT@", path.to_str().unwrap());
                self.executable(&link, &text);
            } else {
                symlink(&path, &link).unwrap();
            }
        }
    }

    /// A text of a page, with addresses and secrets that are there.
    pub fn placed(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, (from, _)) in self.places.iter().enumerate() {
            text = text.replace(from, &format!("{MARK}{number}{MARK}"));
        }
        for host in ["127.0.0.1:", "localhost:", "0.0.0.0:"] {
            let mut parts = text.split(host);
            let mut placed = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let end = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
                placed.push_str(host);
                if end > 0 {
                    let free = self.ports.entry(part[..end].to_owned()).or_insert_with(free_port);
                    placed.push_str(&free.to_string());
                }
                placed.push_str(&part[end..]);
            }
            text = placed;
        }
        for (number, (_, to)) in self.places.iter().enumerate() {
            text = text.replace(&format!("{MARK}{number}{MARK}"), to);
        }
        for part in text.split(SECRETS).skip(1) {
            let end = part.find(|it: char| !(it.is_alphanumeric() || "._-".contains(it)));
            let name = &part[..end.unwrap_or(part.len())];
            fs::write(self.path("secrets").join(name), "secret").unwrap();
        }
        let secrets = format!("{}/", self.path("secrets").to_str().unwrap());
        text.replace(SECRETS, &secrets)
    }

    /// Runs the commands of a block. They are in a shell of their own, which ends with the first
    /// that fails; a line that ends in `&` is waited for until it publishes, and stopped in the
    /// end.
    pub fn run(&mut self, text: &str) -> Outcome {
        for name in ["cargo", "environment", "output"] {
            let _ = fs::remove_file(self.path(name));
        }
        let text = self.placed(text);
        let mut script = include_str!("block.bash").to_owned();
        for line in text.lines() {
            // Only a whole command can be put into the background here.
            if let Some(command) = line.strip_suffix('&').filter(|it| it.ends_with(' ')) {
                script.push_str(&format!("begin\n{command}&\nsettle\n"));
            } else {
                script.push_str(&format!("{line}\n"));
            }
        }
        script.push_str("finish\n");
        let script = script.replace("@STAGE@", self.dir.path().to_str().unwrap());
        fs::write(self.path("block"), script).unwrap();
        let code = self.shell(&["-u", self.path("block").to_str().unwrap()]);
        let read = |name: &str| {
            let bytes = fs::read(self.path(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let variables = read("environment");
        let pair = |it: &str| it.split_once('=').map(|it| (it.0.to_owned(), it.1.to_owned()));
        Outcome {
            code,
            output: read("output"),
            directory: self.path("root"),
            environment: variables.split('\0').filter_map(pair).collect(),
            cargo: read("cargo").lines().map(str::to_owned).collect(),
        }
    }

    /// Whether the shell can read it, for what cannot be run here.
    pub fn is_readable(&mut self, text: &str) -> bool {
        fs::write(self.path("block"), text).unwrap();
        self.shell(&["-n", self.path("block").to_str().unwrap()]) == Some(0)
    }

    fn shell(&self, arguments: &[&str]) -> Option<i32> {
        let output = fs::File::create(self.path("output")).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .args(arguments)
            .current_dir(self.path("root"))
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").to_str().unwrap()))
            .env("HOME", self.dir.path())
            .env("LANG", "C.UTF-8")
            .env("SINK_TYPE", "stdout")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0);
        for (name, place) in
            [("NOMAD_ADDR", "http://nomad.example:4646"), ("CONSUL_HTTP_ADDR", "127.0.0.1:8500")]
        {
            let to = self.places.iter().find(|(from, _)| from == place).map(|it| &it.1);
            command.env(name, to.unwrap_or_else(|| panic!("nothing stands for {place}")));
        }
        ended(command.spawn().unwrap())
    }
}

/// Waits for the end of a group of processes, but not for ever.
fn ended(mut child: Child) -> Option<i32> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if since.elapsed() > PATIENCE {
            let group = format!("kill -s KILL -- -{}", child.id());
            let _ = Command::new("sh").args(["-c", &group]).status();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
