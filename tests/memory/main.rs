//! What the memory of a process still holds after secrets went through it.
//!
//! The test starts itself again as a child, which runs one scenario with the library, says "ready"
//! and waits. The parent reads the child's memory, all of it, and counts. The secrets reach the
//! child as files, so that it has them by no other way than the ones under test; what is searched
//! for is their tail, because allocators overwrite the beginning of what is freed.
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

mod keys;
mod prepare;
mod scan;
mod scenario;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use keys::Secret;
use scenario::{Scenario, VARIABLE};

/// Wipes what is freed, as the program does, unless the scenario wants the system's allocator.
struct Switchable;

#[global_allocator]
static ALLOCATOR: Switchable = Switchable;

#[expect(unsafe_code, reason = "an allocator")]
// SAFETY: hands everything on to one of two allocators that share the system's heap.
unsafe impl std::alloc::GlobalAlloc for Switchable {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: the caller's duty, passed on.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        if scenario::ALLOCATOR_WIPES.load(std::sync::atomic::Ordering::Relaxed) {
            // SAFETY: the caller's duty, passed on.
            unsafe { zeroizing_alloc::ZeroAlloc(std::alloc::System).dealloc(pointer, layout) }
        } else {
            // SAFETY: the caller's duty, passed on.
            unsafe { std::alloc::System.dealloc(pointer, layout) }
        }
    }
}

/// A scenario under way in a child, which waits.
struct Running(Child);

impl Running {
    fn start(scenario: Scenario, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, scenario.name())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let ready = output.lines().map_while(Result::ok).any(|line| line.ends_with("ready"));
        let running = Self(child);
        assert!(ready, "{} did not get through", scenario.name());
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

/// The child's part; does nothing of interest by itself.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent tells it")]
    let name = std::env::var(VARIABLE).unwrap_or_default();
    scenario::run(Scenario::named(&name).expect("the parent names a scenario"));
}

/// How often something is in a child's memory.
struct Copies {
    name: String,
    count: usize,
    /// Whether it has to be, once.
    is_held: bool,
}

/// Copies of each secret and key in the child's memory after `scenario`.
fn copies(scenario: Scenario) -> Vec<Copies> {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    prepare::prepare(directory, scenario);
    let before = prepare::keys(directory, scenario);
    prepare::damage(directory, scenario);
    let is_damaged = matches!(scenario, Scenario::DamagedHeader | Scenario::DamagedKeyring);

    let child = Running::start(scenario, directory);
    let after = if is_damaged { before.clone() } else { prepare::keys(directory, scenario) };
    let is_in = |keys: &[Secret], key: &Secret| keys.iter().any(|one| one.bytes == key.bytes);
    let mut wanted = prepare::texts(directory);
    for key in before.iter().filter(|key| !is_in(&wanted, key)).cloned().collect::<Vec<_>>() {
        wanted.push(Secret { is_held: key.is_held && is_in(&after, &key), ..key });
    }
    for key in after.iter().filter(|key| !is_in(&before, key)) {
        wanted.push(Secret { name: format!("new {}", key.name), ..key.clone() });
    }

    let searched: Vec<&[u8]> =
        wanted.iter().map(|secret| &secret.bytes[secret.bytes.len() - 16..]).collect();
    let counts = scan::count(child.0.id(), &searched).unwrap();
    let mut copies: Vec<Copies> = Vec::new();
    for (Secret { name, is_held, .. }, count) in wanted.into_iter().zip(counts) {
        let is_held = is_held && scenario.leaves_open();
        match copies.iter_mut().find(|copies| copies.name == name) {
            Some(copies) => copies.count += count,
            None => copies.push(Copies { name, count, is_held }),
        }
    }
    copies
}

fn of<'a>(copies: &'a [Copies], name: &str) -> &'a Copies {
    copies.iter().find(|copies| copies.name == name).unwrap()
}

#[expect(clippy::print_stdout, reason = "the table is for people")]
fn show(scenario: Scenario, copies: &[Copies]) {
    let cells: Vec<String> =
        copies.iter().map(|Copies { name, count, .. }| format!("{name} {count}")).collect();
    println!("{:>24}  {}", scenario.name(), cells.join("  "));
}

#[test]
fn the_scanner_finds_what_was_leaked_and_what_the_system_allocator_leaves() {
    for (scenario, leaked) in [
        (Scenario::Leaked, "passphrase"),
        (Scenario::LeakedBlocks, "block"),
        (Scenario::DroppedUnwiped, "passphrase"),
    ] {
        let copies = copies(scenario);
        show(scenario, &copies);
        assert!(of(&copies, leaked).count > 0, "{}", scenario.name());
    }
    let copies = copies(Scenario::DroppedWiped);
    show(Scenario::DroppedWiped, &copies);
    assert_eq!(of(&copies, "passphrase").count, 0);
}

#[test]
fn no_secret_is_left_when_what_needed_it_is_done_and_what_is_needed_is_there_once() {
    let mut wrong = Vec::new();
    for scenario in Scenario::clean() {
        let copies = copies(scenario);
        show(scenario, &copies);
        for Copies { name, count, is_held } in &copies {
            if *count != usize::from(*is_held) {
                wrong.push(format!("{}: {name}, {count} times", scenario.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn an_open_credential_is_in_memory_once() {
    let copies = copies(Scenario::Held);
    show(Scenario::Held, &copies);
    assert_eq!(of(&copies, "db_password").count, 1);
    assert_eq!(of(&copies, "other_password").count, 0);
}
