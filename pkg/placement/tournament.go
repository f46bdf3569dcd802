package placement

// tournament is a complete binary tree over the scores of a cluster's hosts for one size: node 1 is the root, the
// children of i are 2i and 2i+1, the leaves begin at width. An inner node is the greater of its children.
type tournament struct {
	ask   vector
	width int
	nodes []uint64
	asked uint64 // tick of the last question
}

// reset makes room for n leaves, using the old array where it is large enough.
func (t *tournament) reset(ask vector, n int) {
	t.ask, t.width = ask, 1
	for t.width < n {
		t.width *= 2
	}
	if cap(t.nodes) < 2*t.width {
		t.nodes = make([]uint64, 2*t.width)
		return
	}
	t.nodes = t.nodes[:2*t.width]
	clear(t.nodes)
}

// settle plays all matches, after the leaves were filled.
func (t *tournament) settle() {
	for i := t.width - 1; i >= 1; i-- {
		t.nodes[i] = max(t.nodes[2*i], t.nodes[2*i+1])
	}
}

// set changes a leaf, and returns how many nodes it looked at.
func (t *tournament) set(leaf int32, score uint64) (visits uint64) {
	i := t.width + int(leaf)
	t.nodes[i] = score
	for i > 1 {
		i /= 2
		visits++
		winner := max(t.nodes[2*i], t.nodes[2*i+1])
		if t.nodes[i] == winner {
			break
		}
		t.nodes[i] = winner
	}
	return visits
}

// walk is one question put to a tournament: the best leaf that is not marked, the first one of several.
type walk struct {
	*tournament
	slots  []int32
	marks  *marks
	visits uint64
}

// best returns the winning leaf below a node if it scores more than floor, else -1.
func (w *walk) best(node int, floor uint64) (leaf int32, score uint64) {
	w.visits++
	score = w.nodes[node]
	if score <= floor {
		return -1, 0
	}
	if node >= w.width {
		leaf = int32(node - w.width)
		if w.marks.has(w.slots[leaf]) {
			return -1, 0
		}
		return leaf, score
	}
	left, right := 2*node, 2*node+1
	if w.nodes[left] >= w.nodes[right] {
		// What the right holds wins only by scoring more.
		leaf, score = w.best(left, floor)
		if other, better := w.best(right, max(floor, score)); other >= 0 {
			return other, better
		}
		return leaf, score
	}
	// What the left holds wins also by scoring the same.
	leaf, score = w.best(right, floor)
	if leaf >= 0 {
		floor = score - 1
	}
	if other, better := w.best(left, floor); other >= 0 {
		return other, better
	}
	return leaf, score
}
