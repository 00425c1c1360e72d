//! What a thread allocates: a claim of four gigabytes shows here even where the system would never have to give them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn add(bytes: isize) {
    // A thread that ends has no numbers any more, and nobody asks for them.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How long this thread has been at work, where the system tells: a busy machine must not fail a test. Else the time of day.
fn at_work(start: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|t| t.split(' ').next()?.parse().ok()).filter(|n| *n > 0);
    told.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// What some work gives, the most bytes it held at a time on this thread, and how long it took.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, Duration) {
    let start = Instant::now();
    let (before, time) = (NOW.get(), at_work(start));
    MOST.set(before);
    let out = work();
    let bytes = (MOST.get() - before) as usize;
    (out, bytes, at_work(start).saturating_sub(time))
}

/// The same, within bounds: a second, and `mib` mebibytes.
#[track_caller]
pub(crate) fn cheap<T>(what: &str, mib: usize, work: impl FnOnce() -> T) -> T {
    let (out, bytes, time) = measured(work);
    assert!(bytes <= mib << 20, "{what}: {} MiB", bytes >> 20);
    assert!(time < Duration::from_secs(1), "{what}: {time:?}");
    out
}

#[test]
fn claims_are_seen() {
    let (_, bytes, _) = measured(|| drop(std::hint::black_box(vec![0u8; 4 << 30])));
    assert_eq!(bytes, 4 << 30);
}
