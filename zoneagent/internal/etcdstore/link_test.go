package etcdstore

import "github.com/naru-project/naru/federation/link"

// What the link asks of a zone's end.
var (
	_ link.StateSource   = (*ObservedSource)(nil)
	_ link.StateSink     = (*DesiredSink)(nil)
	_ link.JournalSource = (*JournalSource)(nil)
	_ link.JournalSink   = (*OrderSink)(nil)
)
