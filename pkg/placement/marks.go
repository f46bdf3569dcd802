package placement

// marks is a set of host slots that is emptied in O(1).
type marks struct {
	stamps []uint32
	now    uint32
	size   int
}

// begin empties the set and makes room for n slots.
func (m *marks) begin(n int) {
	if len(m.stamps) < n {
		m.stamps = append(m.stamps, make([]uint32, n-len(m.stamps))...)
	}
	m.now++
	m.size = 0
	if m.now == 0 { // the counter has gone round: old stamps would come alive
		clear(m.stamps)
		m.now = 1
	}
}

func (m *marks) add(slot int32) {
	if m.stamps[slot] != m.now {
		m.stamps[slot] = m.now
		m.size++
	}
}

func (m *marks) has(slot int32) bool { return m.stamps[slot] == m.now }
