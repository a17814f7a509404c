//! A folder that looks like `/sys` and `/proc`, for tests. Removed with its value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Root;

pub struct Fake(PathBuf);

#[allow(
    dead_code,
    reason = "shared by unit and integration tests, which use different parts"
)]
impl Fake {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("genie-hugepages-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn root(&self) -> Root {
        Root::at(&self.0)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// A pool of one node, or the whole machine's, by the size of its pages in KiB.
    pub fn pool(&self, node: Option<u16>, page_kib: u64, total: u64, free: u64) {
        let folder = match node {
            Some(node) => format!("sys/devices/system/node/node{node}/hugepages"),
            None => "sys/kernel/mm/hugepages".to_owned(),
        };
        let folder = format!("{folder}/hugepages-{page_kib}kB");
        self.file(&format!("{folder}/nr_hugepages"), &format!("{total}\n"));
        self.file(&format!("{folder}/free_hugepages"), &format!("{free}\n"));
        self.file(&format!("{folder}/surplus_hugepages"), "0\n");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
