mod disturbing;
mod graphs;
mod outside;
mod reading;
mod rights;
mod sockets;
mod world;
mod writing;
