package placement

import (
	"fmt"
	"strings"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Detail says what was looked at and why it would not do: "4 hosts looked at: 3 lack memory (nearest: kvm-2 has
// 1024 MiB free, 2048 MiB asked), 1 is cordoned."
func (e Explanation) Detail() string {
	switch {
	case !e.Known:
		return fmt.Sprintf("Cluster %s is not known here.", e.Cluster)
	case e.Hosts == 0:
		return fmt.Sprintf("Cluster %s has no hosts.", e.Cluster)
	case e.Cordoned:
		return fmt.Sprintf("Cluster %s is cordoned.", e.Cluster)
	}
	return e.sentence() + "."
}

func (e Explanation) sentence() string {
	var b strings.Builder
	b.WriteString(quantity(e.Hosts, "host"))
	b.WriteString(" looked at: ")
	said := make([]string, 0, len(e.Counts)+1)
	if e.Fitting > 0 {
		said = append(said, count(e.Fitting, Fits))
	}
	for _, c := range e.Counts {
		said = append(said, e.say(c))
	}
	b.WriteString(strings.Join(said, ", "))
	return b.String()
}

func (e Explanation) say(c Count) string {
	s := fmt.Sprintf("%d %s", c.Hosts, c.phrase())
	if nearest := e.nearest(c); nearest != "" {
		s += " (nearest: " + nearest + ")"
	}
	return s
}

// phrase is a reason as it is said of so many hosts, without their number: "lack memory".
func (c Count) phrase() string {
	s := phrase(c.Hosts, c.Reason)
	switch c.Reason {
	case Apart, Strayed:
		s += " " + c.Group
	case Lacks:
		s += " " + c.Lacks.String()
	}
	return s
}

// nearest says which host is out by the least, where room is the reason.
func (e Explanation) nearest(c Count) string {
	if c.Reason != Lacks {
		return ""
	}
	return fmt.Sprintf("%s has %s free, %s asked", c.Nearest, amounts(c.NearestFree, c.Lacks), amounts(e.Asked, c.Lacks))
}

func count(n int, r Reason) string { return fmt.Sprintf("%d %s", n, phrase(n, r)) }

func phrase(n int, r Reason) string {
	if n == 1 {
		return phrases[r][0]
	}
	return phrases[r][1]
}

func quantity(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// String names the resources: "cores and memory".
func (l Lacking) String() string {
	names := []string{}
	for d, name := range [...]string{"cores", "memory", "disk"} {
		if l&(1<<d) != 0 {
			names = append(names, name)
		}
	}
	return enumerate(names)
}

// amounts says the numbers of the resources in a set, with their units.
func amounts(r *apiv1.Resources, of Lacking) string {
	said := []string{}
	if of&LacksCores != 0 {
		said = append(said, quantity(int(r.GetCores()), "core"))
	}
	if of&LacksMemory != 0 {
		said = append(said, fmt.Sprintf("%d MiB", r.GetMemoryMib()))
	}
	if of&LacksDisk != 0 {
		said = append(said, fmt.Sprintf("%d GiB", r.GetDiskGib()))
	}
	return enumerate(said)
}

func enumerate(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// Next says what the person who asked can do about it.
func (e Explanation) Next() string {
	switch {
	case !e.Known:
		return "Name a cluster that the zone has, or none."
	case e.Hosts == 0:
		return fmt.Sprintf("Add a host to cluster %s, or ask for another cluster.", e.Cluster)
	case e.Cordoned:
		return fmt.Sprintf("Ask for another cluster, or lift the cordon of %s.", e.Cluster)
	case e.Fitting > 0:
		return "Ask again."
	}
	return e.way() + ", or ask for another cluster."
}

// way is the shortest way out: room can be asked for less of, a group be left, a host be opened or waited for.
func (e Explanation) way() string {
	all := vectorOf(e.Largest)
	switch ask := vectorOf(e.Asked); {
	case e.Largest != nil && lacking(&all, &ask) != 0:
		return fmt.Sprintf("Choose a smaller flavor (an empty host of %s takes %s at most)", e.Cluster,
			amounts(e.Largest, LacksCores|LacksMemory|LacksDisk))
	case e.has(Lacks):
		return "Choose a smaller flavor"
	case e.has(Apart) || e.has(Strayed):
		return "Leave out the affinity group, or add a host to " + e.Cluster
	case e.has(Excluded):
		return "Exclude fewer hosts"
	case e.has(Cordoned) || e.has(Draining) || e.has(Maintenance):
		return "Let a host of " + e.Cluster + " take VMs again"
	}
	return "Wait until a host of " + e.Cluster + " is available"
}

func (e Explanation) has(r Reason) bool {
	for _, c := range e.Counts {
		if c.Reason == r {
			return true
		}
	}
	return false
}

// clustersTold bounds how many clusters a sentence names: a problem's detail holds 8 KiB.
const clustersTold = 16

// Detail says it of each cluster: "2 clusters looked at. web: 8 hosts looked at: 8 lack cores (…). db: cordoned."
func (z ZoneExplanation) Detail() string {
	if len(z.Clusters) == 0 {
		return fmt.Sprintf("Zone %s has no clusters.", z.Zone)
	}
	if len(z.Clusters) == 1 {
		return z.Clusters[0].Detail()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s looked at.", quantity(len(z.Clusters), "cluster"))
	for i, e := range z.Clusters {
		if i == clustersTold {
			fmt.Fprintf(&b, " And %d more.", len(z.Clusters)-i)
			break
		}
		said := ""
		switch {
		case e.Hosts == 0:
			said = "no hosts"
		case e.Cordoned:
			said = "cordoned"
		default:
			said = e.sentence()
		}
		fmt.Fprintf(&b, " %s: %s.", e.Cluster, said)
	}
	return b.String()
}

// Next says what can be done about it: the way out of the cluster that is nearest to one.
func (z ZoneExplanation) Next() string {
	best := -1
	for i, e := range z.Clusters {
		if e.Hosts > 0 && !e.Cordoned && (best < 0 || e.has(Lacks) && !z.Clusters[best].has(Lacks)) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return z.Clusters[best].way() + ", or ask for another zone."
	case len(z.Clusters) == 0:
		return fmt.Sprintf("Add a cluster to zone %s, or ask for another zone.", z.Zone)
	}
	return fmt.Sprintf("Open a cluster of zone %s to VMs, or ask for another zone.", z.Zone)
}

// Bounds of a problem's table.
const (
	clustersListed = 64
	reasonsListed  = 16
)

// Refusals is what Detail says, for programs and tables.
func (e Explanation) Refusals() []*apiv1.ClusterRefusal {
	r := &apiv1.ClusterRefusal{Cluster: e.Cluster, Hosts: uint32(e.Hosts), Cordoned: e.Cordoned}
	for _, c := range e.Counts[:min(len(e.Counts), reasonsListed)] {
		r.Reasons = append(r.Reasons, &apiv1.HostRefusal{Reason: c.phrase(), Hosts: uint32(c.Hosts), Nearest: e.nearest(c)})
	}
	return []*apiv1.ClusterRefusal{r}
}

// Refusals is what Detail says, cluster by cluster, for programs and tables; at most 64 clusters.
func (z ZoneExplanation) Refusals() (all []*apiv1.ClusterRefusal) {
	for _, e := range z.Clusters[:min(len(z.Clusters), clustersListed)] {
		all = append(all, e.Refusals()...)
	}
	return all
}
