package state_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestVersionsOfANounStayBesideIt(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		var all []error
		for v := uint32(1); v <= 5; v++ {
			all = append(all, tx.Offerings.PutVersion(&apiv1.Offering{Id: "a", Version: v, Category: fmt.Sprint(v)}, v))
		}
		return errors.Join(append(all, tx.Offerings.PutVersion(&apiv1.Offering{Id: "b", Version: 9}, 9), tx.ApprovalPolicies.PutVersion(&apiv1.ApprovalPolicy{Id: "a", Version: 7}, 7),
			tx.Offerings.ForgetVersion("a", 5))...)
	})
	read(t, db, func(tx *state.Tx) error {
		if m, err := tx.Offerings.Version("a", 3); err != nil || m.GetCategory() != "3" || m.GetRevision() == "" {
			t.Errorf("version 3: %v, %v", m, err)
		}
		if _, err := tx.Offerings.Version("a", 5); err != state.ErrNotFound {
			t.Errorf("one that was dropped: %v", err)
		}
		var got []uint32
		page, err := tx.Offerings.Versions("a", 4, 2)
		for _, m := range page {
			got = append(got, m.GetVersion())
		}
		if fmt.Sprint(got) != "[3 2]" {
			t.Errorf("below 4: %v", got)
		}
		return err
	})
	write(t, db, func(tx *state.Tx) error { return tx.Offerings.ForgetVersions("a") })
	read(t, db, func(tx *state.Tx) error {
		if page, err := tx.Offerings.Versions("a", 100, 100); err != nil || len(page) != 0 {
			t.Errorf("all dropped: %v, %v", page, err)
		}
		if m, err := tx.ApprovalPolicies.Version("a", 7); err != nil || m.GetVersion() != 7 {
			t.Errorf("another noun's with the same id: %v, %v", m, err)
		}
		return nil
	})
}

// A VM is graded by the highest of what was asked, its project and its image, as messages and as filters see it.
func TestAVMsGradeFollowsItsProjectAndItsImage(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		return errors.Join(
			tx.Projects.Put(&apiv1.Project{Id: "p", Name: "shop"}), tx.Images.Put(&apiv1.Image{Id: "i", Name: "tiny"}),
			tx.VMs.Put(&apiv1.VM{Id: "1", Name: "a", ProjectId: "p", Image: "tiny"}),
			tx.VMs.Put(&apiv1.VM{Id: "2", Name: "b", ProjectId: "p", Image: "tiny", Grade: apiv1.Zone_SENSITIVE}),
		)
	})
	expect := func(a, b apiv1.Zone_Grade) {
		t.Helper()
		read(t, db, func(tx *state.Tx) error {
			for id, want := range map[string]apiv1.Zone_Grade{"1": a, "2": b} {
				m, err := tx.VMs.Get(id)
				if err != nil || m.GetGrade() != want {
					t.Errorf("VM %s is %v, not %v: %v", id, m.GetGrade(), want, err)
				}
				n, err := tx.VMs.Count(nil, "grade="+want.String()+" AND name="+m.GetName())
				if err != nil || n != 1 {
					t.Errorf("a filter for %v does not find VM %s: %v", want, id, err)
				}
			}
			return nil
		})
	}
	expect(apiv1.Zone_OPEN, apiv1.Zone_SENSITIVE)
	write(t, db, func(tx *state.Tx) error {
		return tx.Images.Put(&apiv1.Image{Id: "i", Name: "tiny", Grade: apiv1.Zone_SENSITIVE})
	})
	expect(apiv1.Zone_SENSITIVE, apiv1.Zone_SENSITIVE)
	// Whoever writes a VM again does not make what was reckoned what was asked.
	write(t, db, func(tx *state.Tx) error {
		m, err := tx.VMs.Get("1")
		if err != nil {
			return err
		}
		m.Description = "x"
		return errors.Join(tx.VMs.Put(m), tx.Projects.Put(&apiv1.Project{Id: "p", Name: "shop", Grade: apiv1.Zone_CLASSIFIED}))
	})
	expect(apiv1.Zone_CLASSIFIED, apiv1.Zone_CLASSIFIED)
	write(t, db, func(tx *state.Tx) error {
		return errors.Join(tx.Projects.Put(&apiv1.Project{Id: "p", Name: "shop"}), tx.Images.Put(&apiv1.Image{Id: "i", Name: "tiny"}))
	})
	expect(apiv1.Zone_OPEN, apiv1.Zone_SENSITIVE)
}
