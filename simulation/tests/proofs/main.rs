//! What is proven without a process, a right or a clock: thousands of seeds of a replicated disk and of whole migrations,
//! every state of the commit protocol within bounds, and that each rule is missed when it is left out.

mod disk;
mod model;
