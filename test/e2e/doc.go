// Package e2e drives the real bin/tug as a user would, on images of real
// parts. Build tag: root.
package e2e
