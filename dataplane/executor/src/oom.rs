//! Whom the kernel ends first when memory runs out: an executor, which costs one session, and never the
//! daemon.

/// Of the zygote and what it forks; of those, whoever has most goes.
const SCORE: &str = "800";

/// Makes this process, and those below it, likelier to be ended. That is always allowed.
pub fn prefer_this() {
    // Where it can't be, the kernel's own order holds.
    let _ = std::fs::write("/proc/self/oom_score_adj", SCORE);
}
