package servicetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Site is what a new world usually needs: the zones internet and business with one cluster kvm each and hosts that have
// room, the projects web and db, flavors and an image.
type Site struct {
	Internet, Business *apiv1.Zone
	Kvm                *apiv1.Cluster // business's
	Hosts              []*apiv1.Host  // business's
}

// NewSite makes a site; its hosts have 8 cores, 32 GiB and 1000 GiB each.
func (w *World) NewSite(hosts int) *Site {
	w.Helper()
	ctx, a := context.Background(), w.Admin()
	site := &Site{}
	for _, z := range []string{"internet", "business"} {
		must(w)(a.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: z, Kind: z, Grade: apiv1.Zone_OPEN}}))
		must(w)(a.Clusters.CreateCluster(ctx, &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{Name: "kvm", Zone: z, Hypervisor: "sim"}}))
		for i := range hosts {
			must(w)(a.Hosts.CreateHost(ctx, &apiv1.CreateHostRequest{Host: &apiv1.Host{Name: fmt.Sprintf("kvm-%d", i+1), Zone: z, Cluster: "kvm", Endpoint: "sim://"}}))
		}
	}
	for _, p := range []string{"web", "db"} {
		must(w)(a.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: p}}))
	}
	must(w)(a.Flavors.CreateFlavor(ctx, &apiv1.CreateFlavorRequest{Flavor: &apiv1.Flavor{Name: "s1", Cores: 1, MemoryMib: 1024, DiskGib: 10}}))
	must(w)(a.Flavors.CreateFlavor(ctx, &apiv1.CreateFlavorRequest{Flavor: &apiv1.Flavor{Name: "huge", Cores: 64, MemoryMib: 1 << 20, DiskGib: 10}}))
	must(w)(a.Flavors.CreateFlavor(ctx, &apiv1.CreateFlavorRequest{Flavor: &apiv1.Flavor{Name: "tiny", Cores: 1, MemoryMib: 16, DiskGib: 1}}))
	must(w)(a.Images.CreateImage(ctx, &apiv1.CreateImageRequest{Image: &apiv1.Image{Name: "tiny", Sha256: strings.Repeat("ab", 32), MinMemoryMib: 96, MinDiskGib: 2}}))
	site.Internet = w.Zone("internet")
	site.Business = w.Zone("business")
	c, err := a.Clusters.GetCluster(ctx, &apiv1.GetClusterRequest{Cluster: "kvm", Zone: "business"})
	if err != nil {
		w.Fatal(err)
	}
	site.Kvm = c.GetCluster()
	for _, z := range []*apiv1.Zone{site.Internet, site.Business} {
		all, err := a.Hosts.ListHosts(ctx, &apiv1.ListHostsRequest{Zone: z.GetName(), PageSize: 1000})
		if err != nil {
			w.Fatal(err)
		}
		for _, h := range all.GetHosts() {
			w.Observe(z.GetId(), &apiv1.Host{
				Id: h.GetId(), Name: h.GetName(), Health: apiv1.Host_AVAILABLE, Freshness: apiv1.Freshness_LIVE,
				Total: &apiv1.Resources{Cores: 8, MemoryMib: 32768, DiskGib: 1000},
			})
		}
		if z == site.Business {
			site.Hosts = all.GetHosts()
		}
	}
	return site
}

// Cross lets a project's people change from one zone what the project has in another, for a day.
func (w *World) Cross(project, from, to string, permissions ...string) {
	w.Helper()
	if _, err := w.Admin().Crossings.CreateCrossing(context.Background(), &apiv1.CreateCrossingRequest{Crossing: &apiv1.Crossing{
		Project: project, SourceZone: from, Zone: to, Permissions: permissions, EndsAt: timestamppb.New(time.Now().AddDate(0, 0, 1)),
	}}); err != nil {
		w.Fatal(err)
	}
}

// Zone returns a zone as it is now.
func (w *World) Zone(name string) *apiv1.Zone {
	w.Helper()
	z, err := w.Admin().Zones.GetZone(context.Background(), &apiv1.GetZoneRequest{Zone: name})
	if err != nil {
		w.Fatal(err)
	}
	return z.GetZone()
}

// Connect begins a session of a zone, or ends it.
func (w *World) Connect(zoneID string, connected bool) {
	w.Helper()
	w.Do(&commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
		ZoneId: zoneID, Session: []byte("session of " + zoneID), Connected: connected, Agent: "agent-1", ServerId: "server-1", Incarnation: "inc-" + zoneID,
	}}})
}

// VM is one that can be asked for.
func (w *World) VM(name, project string) *apiv1.VM {
	return &apiv1.VM{Name: name, Project: project, Zone: "business", Cluster: "kvm", Flavor: "s1", Image: "tiny"}
}

// must fails the test where a call fails.
func must(w *World) func(any, error) {
	return func(_ any, err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
}
