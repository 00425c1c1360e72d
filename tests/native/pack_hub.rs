//! `convert owner/name`, against a hub on this machine: the few answers of the real one that `hf-hub` asks for.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use groma::pack::convert::{Stage, convert};
use groma::pack::{Checkpoint, Pack, Source};
use groma::tensor::plan::Run;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pack_common::{Model, golden, names, numbers, options};

/// The commit that the hub is at.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// No such repository.
    Absent,
    /// A file that is listed and not there.
    Missing(&'static str),
    /// The connection ends in the middle of a file.
    Cut(&'static str),
    /// A byte of a file is another one.
    Bent(&'static str),
}

/// A hub with one repository, `someone/tiny`.
struct Hub {
    endpoint: String,
    fault: Arc<Mutex<Fault>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn of(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (fault, asked) = (Arc::new(Mutex::new(Fault::None)), Arc::new(Mutex::new(Vec::new())));
        let (f, a) = (fault.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, fault, asked) = (folder.clone(), *f.lock().unwrap(), a.clone());
                // A client that leaves early is no failure of the hub's.
                thread::spawn(move || drop(serve(stream, &folder, fault, &asked)));
            }
        });
        Self { endpoint, fault, asked }
    }

    fn fault(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Files that were asked for since the last call, by name.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().drain(..).collect()
    }
}

/// One request a connection: `/api/models/…` or `/someone/tiny/resolve/COMMIT/FILE`, whole or a range.
fn serve(mut stream: TcpStream, folder: &Path, fault: Fault, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            let (a, b) = range.split_once('-').unwrap_or((range, ""));
            from = Some((a.parse::<usize>().unwrap_or(0), b.parse::<usize>().ok()));
        }
        if line.is_empty() {
            break;
        }
    }
    let answer = |stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body))
    };
    let plain = path.split('?').next().unwrap_or_default();
    if fault == Fault::Absent || !plain.contains("someone/tiny") {
        return answer(&mut stream, "404 Not Found", "", b"{\"error\":\"Repository not found\"}");
    }
    if plain.starts_with("/api/") {
        let file = |e: fs::DirEntry| {
            let bytes = fs::read(e.path()).unwrap();
            let name = e.file_name().into_string().unwrap();
            let lfs = name.ends_with(".safetensors").then(|| json!({"sha256": sha256(&bytes), "size": bytes.len()}));
            json!({"rfilename": name, "size": bytes.len(), "lfs": lfs})
        };
        let mut list: Vec<Value> = fs::read_dir(folder)?.map(|e| file(e.unwrap())).collect();
        list.extend([json!({"rfilename": "../evil.safetensors"}), json!({"rfilename": "extra/model.safetensors"})]);
        return answer(&mut stream, "200 OK", "", json!({"sha": COMMIT, "siblings": list}).to_string().as_bytes());
    }
    let name = plain.rsplit('/').next().unwrap_or_default();
    assert!(plain.contains(&format!("/resolve/{COMMIT}/")), "{plain}: files are asked for by commit");
    let Ok(mut bytes) = fs::read(folder.join(name)) else { return answer(&mut stream, "404 Not Found", "", b"") };
    if matches!(fault, Fault::Missing(n) if n == name) {
        return answer(&mut stream, "404 Not Found", "", b"");
    }
    let etag = sha256(&bytes);
    let all = bytes.len();
    if matches!(fault, Fault::Bent(n) if n == name) {
        bytes[all - 1] ^= 1;
    }
    let (first, last) = from.map_or((0, all - 1), |(a, b)| (a, b.unwrap_or(all - 1).min(all - 1)));
    if last > 0 {
        asked.lock().unwrap().push(name.to_owned());
    }
    let headers =
        format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {first}-{last}/{all}\r\n");
    let body = &bytes[first..=last];
    if body.len() > 1 && matches!(fault, Fault::Cut(n) if n == name) {
        let head =
            format!("HTTP/1.1 206 Partial\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body[..body.len() / 2])?;
        stream.flush()?;
        return stream.shutdown(std::net::Shutdown::Write);
    }
    answer(&mut stream, "206 Partial Content", &headers, body)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The golden model `tiny` in two shards with an index, as large checkpoints lie on the hub.
fn sharded(dir: &Path) {
    let whole = Model::golden("tiny");
    let mut map = serde_json::Map::new();
    for i in 0..2 {
        let file = format!("model-0000{}-of-00002.safetensors", i + 1);
        let tensors = whole.tensors.iter().enumerate().filter(|(k, _)| k % 2 == i);
        let tensors = tensors.map(|(_, (n, t))| (n.clone(), t.clone())).collect();
        let shard = Model { config: whole.config.clone(), tensors, tokenizer: whole.tokenizer.clone() };
        shard.write(dir);
        fs::rename(dir.join("model.safetensors"), dir.join(&file)).unwrap();
        map.extend(shard.tensors.keys().map(|n| (n.clone(), json!(file))));
    }
    fs::write(dir.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    fs::write(dir.join("README.md"), "---\nlicense: cc0-1.0\n---\n").unwrap();
    fs::write(dir.join("training.log"), "not a file of a checkpoint").unwrap();
}

struct Bench {
    dir: tempfile::TempDir,
    hub: Hub,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        sharded(&dir.path().join("repo"));
        let hub = Hub::of(dir.path().join("repo"));
        Self { dir, hub }
    }

    fn convert(&self, endpoint: &str, out: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_groma"));
        command.args(["convert", "someone/tiny", "-o", out, "--quant", "keep"]).current_dir(self.dir.path());
        self.point(&mut command, endpoint);
        command.output().unwrap()
    }

    /// Tells a call of the hub at `endpoint`, past any proxy.
    fn point(&self, command: &mut Command, endpoint: &str) {
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", self.dir.path().join("hub"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
    }

    /// What a call that must fail says; nothing of a pack may stay.
    fn failure(&self, endpoint: &str, status: i32) -> String {
        let out = self.convert(endpoint, "out");
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(status), "{said}");
        let left: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| *n == "repo" || *n == "hub"), "{left:?}");
        said
    }
}

#[test]
fn a_repository_becomes_a_pack_and_is_fetched_once() {
    let bench = Bench::new();
    let out = bench.convert(&bench.hub.endpoint, "out");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let asked = bench.hub.asked();
    assert_eq!(asked.len(), 6, "each file once, and no others: {asked:?}");
    let (pack, source) = (Pack::open(bench.dir.path().join("out")).unwrap(), Checkpoint::open(golden("tiny")).unwrap());
    pack.verify(&Run::default()).unwrap();
    assert_eq!(pack.index().manifest().licence, ["cc0-1.0"]);
    assert_eq!(pack.index().manifest().name, "tiny");
    assert_eq!(pack.tokenizer().unwrap(), source.tokenizer().unwrap());
    for name in names(&source).iter().filter(|n| !n.ends_with("mask_token")) {
        assert_eq!(numbers(&pack, name), numbers(&source, name), "{name}");
    }

    assert_eq!(bench.convert(&bench.hub.endpoint, "again").status.code(), Some(0));
    assert_eq!(bench.hub.asked(), [""; 0], "the cache has them all");
    let offline = bench.convert("http://127.0.0.1:9", "offline");
    assert_eq!(offline.status.code(), Some(0), "{}", String::from_utf8_lossy(&offline.stderr));
    let manifest = |pack: &str| fs::read(bench.dir.path().join(pack).join("model.json")).unwrap();
    assert_eq!(manifest("out"), manifest("again"));
    assert_eq!(manifest("out"), manifest("offline"));
}

#[test]
fn what_can_not_be_fetched_is_named() {
    let bench = Bench::new();
    // Port 9 discards; nobody listens there.
    let said = bench.failure("http://127.0.0.1:9", 1);
    assert!(said.contains("error[part-missing]: someone/tiny: the hub can't be reached"), "{said}");
    bench.hub.fault(Fault::Absent);
    let said = bench.failure(&bench.hub.endpoint, 3);
    assert!(said.contains("error[no-model]: someone/tiny:") && said.contains("404"), "{said}");
    let shard = "model-00002-of-00002.safetensors";
    bench.hub.fault(Fault::Missing(shard));
    let said = bench.failure(&bench.hub.endpoint, 1);
    assert!(said.contains(&format!("error[part-missing]: someone/tiny: {shard}:")) && said.contains("404"), "{said}");
    bench.hub.fault(Fault::Bent(shard));
    let said = bench.failure(&bench.hub.endpoint, 1);
    assert!(said.contains(&format!("error[part-corrupt]: someone/tiny: {shard}:")), "{said}");
    assert!(said.contains("SHA-256") && said.contains(", got "), "{said}");
    bench.hub.fault(Fault::None);
    let out = bench.convert(&bench.hub.endpoint, "out");
    assert_eq!(out.status.code(), Some(0), "the bent file was not kept: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let shard = "model-00001-of-00002.safetensors";
    bench.hub.fault(Fault::Cut(shard));
    let said = bench.failure(&bench.hub.endpoint, 1);
    assert!(said.contains(&format!("error[part-missing]: someone/tiny: {shard}:")), "{said}");
    assert!(said.contains("the next call goes on there"), "{said}");
    let part = |dir: &Path| -> Vec<u64> {
        let blobs = dir.join("hub/hub/models--someone--tiny/blobs");
        let blobs = if blobs.is_dir() { blobs } else { dir.join("hub/models--someone--tiny/blobs") };
        let parts = fs::read_dir(blobs)
            .unwrap()
            .map(|e| e.unwrap())
            .filter(|e| e.path().extension().is_some_and(|x| x == "part"));
        parts.map(|e| e.metadata().unwrap().len()).collect()
    };
    let size = fs::metadata(bench.dir.path().join("repo").join(shard)).unwrap().len();
    assert_eq!(part(bench.dir.path()), [size / 2], "half of it waits");
    bench.hub.fault(Fault::None);
    assert_eq!(bench.convert(&bench.hub.endpoint, "out").status.code(), Some(0));
    Pack::open(bench.dir.path().join("out")).unwrap().verify(&Run::default()).unwrap();
}

/// The hub is named by the environment, so a process of its own converts: this test again, told where.
#[test]
fn progress_is_one_number_a_stage() {
    const WHERE: &str = "GROMA_TEST_PROGRESS";
    if let Some(dir) = std::env::var_os(WHERE) {
        let seen = std::cell::RefCell::new(Vec::new());
        let out = Path::new(&dir).join("out");
        convert(Path::new("someone/tiny"), &out, &options("keep"), &|p| {
            seen.borrow_mut().push((p.stage, p.done, p.total))
        })
        .unwrap();
        let seen = seen.into_inner();
        let write = seen.iter().position(|p| p.0 == Stage::Write).unwrap();
        assert!(write > 6 && seen[write..].iter().all(|p| p.0 == Stage::Write), "fetching comes first");
        for stage in [&seen[..write], &seen[write..]] {
            assert!(stage.windows(2).all(|w| w[0].1 <= w[1].1 && w[0].2 == w[1].2), "{stage:?}");
            assert_eq!(stage.last().map(|p| p.1), stage.last().map(|p| p.2), "it ends at the end");
        }
        return;
    }
    let bench = Bench::new();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["pack_hub::progress_is_one_number_a_stage", "--exact"]).env(WHERE, bench.dir.path());
    bench.point(&mut again, &bench.hub.endpoint);
    let out = again.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"));
    assert!(bench.dir.path().join("out/model.json").is_file());
}

/// A hub that says nothing must not hold up who wants to leave.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_download() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new();
    let upstream = bench.hub.endpoint.trim_start_matches("http://").to_owned();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    // Passes the first request on, and never answers the others.
    thread::spawn(move || {
        let mut silent = Vec::new();
        for (i, stream) in listener.incoming().flatten().enumerate() {
            if i > 0 {
                silent.push(stream);
                tell.send(()).unwrap_or_default();
                continue;
            }
            let mut hub = TcpStream::connect(&upstream).unwrap();
            let mut stream = stream;
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap();
            hub.write_all(&request[..n]).unwrap();
            std::io::copy(&mut hub, &mut stream).unwrap();
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_groma"));
    command.args(["convert", "someone/tiny", "-o", "out"]).current_dir(bench.dir.path());
    bench.point(&mut command, &endpoint);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    told.recv_timeout(std::time::Duration::from_secs(60)).expect("it asks for a file");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let start = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed().as_secs() < 3);
}
