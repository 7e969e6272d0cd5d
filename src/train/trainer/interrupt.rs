//! Ends a run at Ctrl-C.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

/// The number of runs that end at Ctrl-C.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Whether Ctrl-C was pressed since the runs began.
static PRESSED: AtomicBool = AtomicBool::new(false);

/// While it lives, the first Ctrl-C sets a flag in place of ending the process; the second ends it.
struct Listener;

impl Listener {
    /// Begins to listen; without effect where the program has a handler of its signals already.
    fn start() -> Listener {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            #[cfg(feature = "progress")]
            let _ = ctrlc::set_handler(|| {
                if RUNS.load(Ordering::SeqCst) == 0 || PRESSED.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
            });
        });
        if RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
            PRESSED.store(false, Ordering::SeqCst);
        }
        Listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        RUNS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What ends a run from outside.
pub(super) struct Interrupt {
    listener: Option<Listener>,
    flag: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    pub(super) fn new(ctrl_c: bool, flag: Option<Arc<AtomicBool>>) -> Interrupt {
        Interrupt { listener: ctrl_c.then(Listener::start), flag }
    }

    pub(super) fn is_requested(&self) -> bool {
        let flag = self.flag.as_ref().is_some_and(|flag| flag.load(Ordering::SeqCst));
        flag || self.listener.is_some() && PRESSED.load(Ordering::SeqCst)
    }
}
