//! Building and loading the simulated driver, and what tests ask of it.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

pub const MIB: u64 = 1 << 20;
/// The simulated device's memory.
pub const MEMORY_BYTES: u64 = 1 << 30;
/// All that it is built from.
const SOURCES: [&str; 6] = [
    include_str!("driver.cpp"),
    include_str!("books.h"),
    include_str!("streams.h"),
    include_str!("work.h"),
    include_str!("../../src/device/cuda/on_cpu.cpp"),
    include_str!("../../src/device/cuda/gather.cu"),
];

/// When streams do their work. The numbers are the driver's.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Late, by chance.
    Late,
    /// Not at all.
    Held,
}

/// The driver, loaded under the name by which cudarc looks for it.
pub struct Simulated(Library);

/// Runs a test with a driver of its own; then nothing may be alive, and no rule broken.
pub fn simulated(test: impl FnOnce(&Simulated)) {
    simulated_until(test, &[]);
}

/// The same, where the test breaks something: what is alive may be of these kinds.
pub fn simulated_until(test: impl FnOnce(&Simulated), may_live: &[&str]) {
    static TURN: Mutex<()> = Mutex::new(());
    static DRIVER: OnceLock<Result<Simulated, String>> = OnceLock::new();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = match DRIVER.get_or_init(Simulated::load) {
        Ok(driver) => driver,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    println!("GENIE_SIMULATED_SEED={}", seed());
    driver.start();
    test(driver);
    driver.check(may_live);
    driver.start();
}

impl Simulated {
    fn load() -> Result<Self, String> {
        if Path::new("/dev/nvidiactl").exists() {
            return Err("this machine has NVIDIA's driver".into());
        }
        let compiler = build("nvrtc", "nvrtc.cpp", &[include_str!("nvrtc.cpp")])?;
        let driver = build("cuda", "driver.cpp", &SOURCES)?;
        let [compiler, driver] = [compiler, driver].map(|library| {
            // SAFETY: both were just built from the sources here, which have no constructors but
            // those of containers.
            unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) }.unwrap()
        });
        // Used by cudarc for the rest of the process.
        std::mem::forget(compiler);
        Ok(Self(driver))
    }

    fn function<T>(&self, name: &str) -> Symbol<T> {
        // SAFETY: callers name a function of `driver.cpp` and its type.
        unsafe { self.0.get(name.as_bytes()) }.unwrap()
    }

    /// Forgets everything, and ends what streams are left.
    pub fn start(&self) {
        let start = self.function::<unsafe extern "C" fn(u64, u64)>("simulated_start");
        // SAFETY: takes two numbers.
        unsafe { start(MEMORY_BYTES, seed()) };
    }

    /// Sets one of the device's attributes.
    pub fn attribute(&self, attribute: c_int, value: c_int) {
        let set = self.function::<unsafe extern "C" fn(c_int, c_int)>("simulated_attribute");
        // SAFETY: takes two numbers.
        unsafe { set(attribute, value) };
    }

    /// When streams do their work.
    pub fn pace(&self, pace: Pace) {
        let set = self.function::<unsafe extern "C" fn(c_int)>("simulated_pace");
        // SAFETY: takes a number.
        unsafe { set(pace as c_int) };
    }

    /// Lets the `number`th call of this name fail; for ever: and everything after it, as when a
    /// device is lost.
    pub fn fail(&self, name: &str, number: u64, for_ever: bool) {
        type Fail = unsafe extern "C" fn(*const c_char, u64, c_int);
        let name = CString::new(name).unwrap();
        // SAFETY: takes a C string, which it copies, and numbers.
        unsafe { self.function::<Fail>("simulated_fail")(name.as_ptr(), number, for_ever.into()) };
    }

    /// Whether the call that was to fail came.
    pub fn has_failed(&self) -> bool {
        let failed = self.function::<unsafe extern "C" fn() -> c_int>("simulated_has_failed");
        // SAFETY: takes nothing.
        unsafe { failed() != 0 }
    }

    fn text(&self, what: c_int) -> Vec<String> {
        type Text = unsafe extern "C" fn(c_int, *mut u8, usize) -> usize;
        let mut text = vec![0; 1 << 20];
        // SAFETY: writes at most so many bytes.
        let len =
            unsafe { self.function::<Text>("simulated_text")(what, text.as_mut_ptr(), text.len()) };
        let text = String::from_utf8_lossy(&text[..len]);
        text.lines().map(str::to_owned).collect()
    }

    /// Rules that were broken.
    pub fn violations(&self) -> Vec<String> {
        self.text(0)
    }

    /// What was refused as the documentation says that it may be.
    pub fn refusals(&self) -> Vec<String> {
        self.text(1)
    }

    /// What is alive, or was called: names and counts.
    fn counts(&self, what: c_int) -> BTreeMap<String, u64> {
        let count = |line: String| {
            let (name, count) = line.split_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        self.text(what).into_iter().map(count).collect()
    }

    pub fn alive(&self) -> BTreeMap<String, u64> {
        self.counts(2)
    }

    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.counts(3)
    }

    pub fn check(&self, may_live: &[&str]) {
        assert_eq!(self.violations(), [""; 0]);
        let mut alive = self.alive();
        alive.retain(|name, _| !may_live.contains(&name.as_str()));
        assert!(alive.is_empty(), "still alive: {alive:?}");
    }
}

/// Files that this process has open.
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How late streams are; the same number makes them late alike, as far as threads allow.
fn seed() -> u64 {
    let given = std::env::var("GENIE_SIMULATED_SEED");
    given.map_or(std::process::id().into(), |seed| seed.parse().unwrap())
}

/// Builds `lib{name}.so` from a file here, unless it was built from the same sources before.
fn build(name: &str, file: &str, sources: &[&str]) -> Result<PathBuf, String> {
    let mut hash = DefaultHasher::new();
    sources.hash(&mut hash);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("simulated-{name}-{:016x}.so", hash.finish()));
    if library.exists() {
        return Ok(library);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Another process may be building it, too.
    let unfinished = folder.join(format!("simulated-{name}-{}", std::process::id()));
    let built = Command::new("c++")
        .args(["-std=c++20", "-O1", "-Wall", "-shared", "-fPIC", "-pthread"])
        .arg(format!("-Wl,-soname,lib{name}.so"))
        .arg("-I")
        .arg(here.join("src/device/cuda"))
        .arg("-o")
        .args([&unfinished, &here.join("tests/simulated_cuda").join(file)])
        .output()
        .map_err(|error| format!("no C++ compiler: {error}"))?;
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::rename(&unfinished, &library).unwrap();
    Ok(library)
}
