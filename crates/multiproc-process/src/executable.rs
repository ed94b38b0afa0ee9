//! The executable of this process, and which functions lie in it.
//!
//! Unsafe code: asking the loader.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;

use crate::init::INITIALIZED;

/// The executable of this process, as the loader reports it.
struct Executable {
    /// The distance by which the loader has relocated it.
    base: usize,
    segments: Vec<Range<usize>>,
    /// `true` if the kernel was asked to execute this file, and not the loader with this file as
    /// its argument.
    is_run_by_kernel: bool,
}

impl Executable {
    fn find() -> Self {
        extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
            // SAFETY: the loader passes a valid pointer, which lives as long as this call.
            let info = unsafe { &*info };
            // SAFETY: the loader passes the pointer from below, and no other reference to its
            // target is used.
            let found = unsafe { &mut *found.cast::<Executable>() };
            // SAFETY: the program headers of a loaded object stay in memory with it.
            let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            // These types have the size of an address.
            let size = |number| usize::try_from(number).unwrap_or(0);
            found.base = size(info.dlpi_addr);
            let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
            found.segments.extend(loaded.map(|header| {
                let start = found.base.wrapping_add(size(header.p_vaddr));
                start..start.wrapping_add(size(header.p_memsz))
            }));
            // The kernel loads the loader that the executable names (PT_INTERP) and reports its
            // address (AT_BASE), unless it was told to execute the loader itself.
            let wants_loader = headers.iter().any(|header| header.p_type == libc::PT_INTERP);
            // SAFETY: it only reads a number that the kernel passed to this program.
            let has_loader = unsafe { libc::getauxval(libc::AT_BASE) } != 0;
            found.is_run_by_kernel = wants_loader == has_loader;
            1 // ends the search: the first object is the executable
        }

        let mut found = Self { base: 0, segments: Vec::new(), is_run_by_kernel: false };
        // SAFETY: `visit` has the type that is called, and expects this pointer.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
        found
    }

    fn contains(&self, address: usize) -> bool {
        self.segments.iter().any(|segment| segment.contains(&address))
    }
}

/// Returns `true` if `entry`, of a [`Callee`](crate::bootstrap::Callee), lies in
/// `/proc/self/exe`: not in a library that was loaded, and not in a program that was loaded by
/// executing the loader.
pub(crate) fn is_in_executable(entry: usize) -> bool {
    let executable = Executable::find();
    let addresses = [anchor(), anchor().wrapping_add(entry)];
    executable.is_run_by_kernel && addresses.iter().all(|&it| executable.contains(it))
}

/// Describes what lies outside of `/proc/self/exe`, and what to do about it.
pub(crate) fn what_is_outside() -> &'static str {
    let executable = Executable::find();
    if !executable.contains(anchor()) {
        "but multiproc is in a library that the program has loaded; link multiproc and the function \
         into the program, or let the library start a separate program with \
         `std::process::Command`"
    } else if !executable.is_run_by_kernel {
        "which is the loader, because the program was started as `ld.so PROGRAM`; start the program by \
         its own name"
    } else {
        "but the function is in a library that the program has loaded; move the function into the \
         program, or let the library start a separate program with `std::process::Command`"
    }
}

/// Identifies this copy of the library among all those in the executable, in every process that
/// runs it. A program contains several if its dependencies require different versions. Returns
/// `None` if this copy is in a library that the program has loaded.
pub(crate) fn this_copy() -> Option<usize> {
    let executable = Executable::find();
    executable.contains(anchor()).then(|| anchor().wrapping_sub(executable.base))
}

/// The address from which functions are measured. A static has one address, while a function may
/// have several. A static that is written is not merged with that of another copy of this library.
pub(crate) fn anchor() -> usize {
    (&raw const INITIALIZED).addr()
}
