// Package dev is the whole federation on one machine, as docs/site.md draws it: networks in namespaces, three servers, a
// broker before each zone, an agent and a real libvirt host in each, and 53 simulated ones. The command naru-dev brings it
// up, walks the main job, and takes it down again.
//
// What runs is recorded (process id and start time), so that any later call of naru-dev, of a run that was killed too,
// finds it, and ends nothing that is not its own.
package dev
