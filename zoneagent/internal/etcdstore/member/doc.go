// Package member runs one member of a zone's etcd inside the agent, and restores a backup into an empty folder.
//
// It knows etcd's server and nothing of what Naru keeps in it. A member is one of:
//
//   - alone: the folder is empty and Config.Join too; it begins a new cluster of one;
//   - joining: the folder is empty and Config.Join names the cluster; it was added there as a learner before;
//   - resuming: the folder holds a member's data; Config.Join does not count.
package member
