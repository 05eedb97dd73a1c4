//! The C library behind this one, and its errno.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The function of this name that would have been called without this library; null if it is in a
/// library that the program does not have.
pub(crate) fn lookup(found: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = found.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: `name` ends with a zero, and RTLD_NEXT is a handle for a library that is loaded.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    found.store(function, Ordering::Relaxed);
    function
}

/// The function `$name` of another library, which has the type `$type`, if the program has it.
macro_rules! next_if_any {
    ($name:literal, $type:ty) => {{
        static FOUND: core::sync::atomic::AtomicPtr<core::ffi::c_void> =
            core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());
        let found = $crate::next::lookup(&FOUND, $name);
        // SAFETY: null is nothing; else the library's header declares it with this type.
        unsafe { core::mem::transmute::<*mut core::ffi::c_void, Option<$type>>(found) }
    }};
}
pub(crate) use next_if_any;

/// The function `$name` of the C library, which has the type `$type`. Without it nothing could be
/// called.
macro_rules! next {
    ($name:literal, $type:ty) => {
        $crate::next::next_if_any!($name, $type).unwrap_or_else(|| std::process::abort())
    };
}
pub(crate) use next;

/// Says why a call failed.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: no arguments; the pointer is to this thread's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: valid and aligned as long as the thread lives, and nobody else's.
    unsafe { ptr::write(place, errno) };
}

pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}
