// Package version says which build this is.
package version

// Version is set by the linker: the output of git describe.
var Version = "dev"
