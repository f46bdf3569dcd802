package wire

// Reason is why a frame may not pass. The set is closed and its texts never change: metrics carry them as a label,
// and the far end reads them in front of Withheld.reason.
type Reason string

const (
	// ReasonEnvelope: the frame around the payload is malformed.
	ReasonEnvelope Reason = "ENVELOPE"
	// ReasonType: the type is not in the closed table.
	ReasonType Reason = "TYPE"
	// ReasonDirection: the type may not travel this way, or the frame says another way than it came.
	ReasonDirection Reason = "DIRECTION"
	// ReasonForm: payload or body is not in the canonical form, or cannot be decoded.
	ReasonForm Reason = "FORM"
	// ReasonOversize: the payload is larger than its type may be.
	ReasonOversize Reason = "OVERSIZE"
	// ReasonUnknown: a field or enum value that this side's schema does not have.
	ReasonUnknown Reason = "UNKNOWN"
	// ReasonRules: a rule written in proto/ is broken.
	ReasonRules Reason = "RULES"
	// ReasonMethod: no such method, or not one that a zone may call.
	ReasonMethod Reason = "METHOD"
	// ReasonInternal: a field that never crosses an edge.
	ReasonInternal Reason = "INTERNAL"
)

// Refusal says why a frame may not pass.
type Refusal struct {
	Reason Reason
	// Hostile: no honest peer of any version sends this. The session must be cut.
	Hostile bool
	// Detail names the field or method concerned and holds no value of the payload.
	Detail string
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

func hostile(reason Reason, detail string) *Refusal {
	return &Refusal{Reason: reason, Hostile: true, Detail: detail}
}

func refuse(reason Reason, detail string) *Refusal {
	return &Refusal{Reason: reason, Detail: detail}
}
