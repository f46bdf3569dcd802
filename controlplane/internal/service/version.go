package service

import (
	"strconv"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
)

// pageOfVersions are how many versions a page has where nobody said; that is also what lists have.
const pageOfVersions = 100

// versions returns a page of the versions that the state keeps of a noun, the newest first, and where the next one begins.
func (n noun[M]) versions(tx *state.Tx, id string, size uint32, token string, version func(M) uint32) (items []M, next string, err error) {
	below := uint64(1) << 32
	if token != "" {
		if below, err = strconv.ParseUint(token, 10, 32); err != nil {
			return nil, "", problem.New(problem.Invalid, "the page token is not one of this list", "Begin again without a page token.").With("page_token", "does not belong to this list")
		}
	}
	if size == 0 {
		size = pageOfVersions
	}
	if items, err = n.table(tx).Versions(id, below, int(size)+1); err != nil {
		return nil, "", err
	}
	if len(items) > int(size) {
		items = items[:size]
		next = strconv.FormatUint(uint64(version(items[size-1])), 10)
	}
	return items, next, nil
}

// version returns one version of a noun that was found.
func (n noun[M]) version(tx *state.Tx, m M, name string, version uint32) (M, error) {
	v, err := n.table(tx).Version(m.GetId(), version)
	if err == state.ErrNotFound {
		return v, n.noVersion(name, version)
	}
	return v, err
}

func (n noun[M]) noVersion(name string, version uint32) error {
	return problem.Newf(problem.NotFound, "Leave the version out for the newest.", "there is no version %d of %s %s", version, n.word(), name)
}
