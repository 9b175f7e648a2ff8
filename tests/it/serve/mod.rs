//! The whole service: sessions, connections and API in one process, or in two containers of a pod.

mod kills;
mod life;
mod pods;
