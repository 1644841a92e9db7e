//! Prometheus, Alertmanager and node-exporter as Debian ships them, started on ports of their own.
//!
//! They are looked for on the path, then in the target folder, where `tests/all` puts what it fetches. They are never installed:
//! Debian's packages would start them as services of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cluster::{LIMIT, free_ports};
use crate::eventually;
use crate::programs::Program;

/// What watches one host, and tells somebody.
pub struct Prometheus {
    /// Its own port.
    pub port: u16,
    /// The port of its Alertmanager.
    pub alertmanager: u16,
    programs: Vec<Program>,
}

/// Ports for the three, to be written into their files before they start.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Prometheus.
    pub prometheus: u16,
    /// Alertmanager.
    pub alertmanager: u16,
    /// node-exporter.
    pub exporter: u16,
}

impl Ports {
    /// Three that are free.
    pub fn free() -> Ports {
        let [prometheus, alertmanager, exporter] = free_ports();
        Ports { prometheus, alertmanager, exporter }
    }
}

impl Prometheus {
    /// Starts all three with `prometheus.yml` and `alertmanager.yml` of a folder, where they keep what they keep, and waits until
    /// they are ready.
    #[track_caller]
    pub fn start(folder: &Path, ports: Ports) -> Prometheus {
        let at = |port: u16| format!("--web.listen-address=127.0.0.1:{port}");
        let file = |name: &str| folder.join(name).display().to_string();
        let run = |name: &str, arguments: &[String]| {
            let mut argv = program(name);
            argv.extend_from_slice(arguments);
            Program::start(&argv, &folder.join(format!("{name}.log")))
        };
        let exporter = ["--collector.disable-defaults", "--collector.filesystem"].map(str::to_owned);
        let programs = vec![
            run("prometheus-node-exporter", &[&exporter[..], &[at(ports.exporter)]].concat()),
            run(
                "prometheus-alertmanager",
                &[
                    format!("--config.file={}", file("alertmanager.yml")),
                    format!("--storage.path={}", file("alerts")),
                    "--cluster.listen-address=".to_owned(),
                    at(ports.alertmanager),
                ],
            ),
            run(
                "prometheus",
                &[
                    format!("--config.file={}", file("prometheus.yml")),
                    format!("--storage.tsdb.path={}", file("samples")),
                    at(ports.prometheus),
                ],
            ),
        ];
        let it = Prometheus { port: ports.prometheus, alertmanager: ports.alertmanager, programs };
        for port in [it.port, it.alertmanager] {
            eventually("it is ready", LIMIT, || get(port, "/-/ready").map(drop).map_err(|why| it.seen(&why)));
        }
        it
    }

    /// The values that a query has now.
    pub fn query(&self, query: &str) -> Result<Vec<f64>, String> {
        let answer = curl(&[
            "--get",
            "--data-urlencode",
            &format!("query={query}"),
            &format!("http://127.0.0.1:{}/api/v1/query", self.port),
        ])?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        let found = answer["data"]["result"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(found.iter().filter_map(|it| it["value"][1].as_str()?.parse().ok()).collect())
    }

    /// The alerts that are pending or fire, as its API tells them.
    pub fn alerts(&self) -> Result<Vec<Value>, String> {
        let answer = get(self.port, "/api/v1/alerts")?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        answer["data"]["alerts"].as_array().cloned().ok_or_else(|| answer.to_string())
    }

    /// What was seen last, and what the programs said.
    pub fn seen(&self, last: &dyn std::fmt::Display) -> String {
        let said = self.programs.iter().map(Program::said).collect::<Vec<_>>().join("\n\n");
        format!("{last}\n{said}")
    }
}

/// How a program of Debian's is started. One that is not installed sees its own files in `/usr/share`, as it would if it were:
/// Alertmanager reads its templates there. Nobody else sees them, in mounts of its own; that takes root.
#[track_caller]
fn program(name: &str) -> Vec<String> {
    const AS_IF_INSTALLED: &str = r#"mount --bind "$1" /usr/share && shift && exec "$@""#;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |place: &PathBuf| fs::metadata(place).is_ok_and(|it| it.is_file());
    if let Some(installed) = std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_there) {
        return vec![installed.display().to_string()];
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    // target/debug/deps/it-0123456789abcdef
    let debian = test.ancestors().nth(3).expect("tests are three folders deep").join("debian/usr");
    let fetched = debian.join("bin").join(name);
    assert!(is_there(&fetched), "there is no `{name}`: `tests/all` fetches it; or install it");
    let (share, fetched) = (debian.join("share").display().to_string(), fetched.display().to_string());
    let argv = ["unshare", "--mount", "--", "sh", "-c", AS_IF_INSTALLED, "sh", &share, &fetched];
    argv.map(str::to_owned).to_vec()
}

fn get(port: u16, path: &str) -> Result<String, String> {
    curl(&[&format!("http://127.0.0.1:{port}{path}")])
}

fn curl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "10", "--noproxy", "*"])
        .args(arguments)
        .output()
        .expect("curl can be run");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said.into_owned()) } else { Err(format!("{said}{why}")) }
}
