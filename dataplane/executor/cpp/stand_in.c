// Nothing: see build.rs.
typedef int genie_nothing;
