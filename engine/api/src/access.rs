//! What a client may do.

/// How much a client may; each includes those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Access {
    /// Nothing.
    None,
    /// Ask.
    Read,
    /// Ask and change.
    Change,
}
