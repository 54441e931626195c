import json, sys, time
from fractions import Fraction
import numpy as np
from lepton.simulator.dram_replay import replay
from lepton.simulator.dram_timing import Arbitration, DramTiming
D="/work/shared/data/dram/"
def load(name, cfg):
    st,tm,sy=cfg["dram_structure"],cfg["timing"],cfg["system"]
    g=lambda k,d=None: int(tm.get(k,d))
    hbm=st["protocol"].startswith("HBM")
    bl=int(st["BL"]); bus=int(sy["bus_width"]); col=int(st["columns"])*(2 if hbm else 1)
    page=col*int(st["device_width"])//8
    dev=bus//int(st["device_width"])
    banks=int(st["bankgroups"]*st["banks_per_group"])
    megs=page*int(st["rows"])//(1<<20)*banks*dev
    return DramTiming(name, 1000/Fraction(str(tm["tCK"])), int(sy["channels"]), max(1,int(sy["channel_size"])//megs), int(st["bankgroups"]), int(st["banks_per_group"]), int(st["rows"]), page*dev, bus//8*bl, bl//2, sy["address_mapping"],
      g("CL"),g("CWL"),g("tRCDRD" if hbm else "tRCD"),g("tRCDWR" if hbm else "tRCD"),g("tRP"),g("tRAS"),g("tWR"),g("tRTP",5),g("tCCD_S"),g("tCCD_L"),g("tRRD_S"),g("tRRD_L"),g("tFAW"),g("tWTR_S"),g("tWTR_L"),g("tRFC"),g("tREFI"),g("tRTRS",2),g("tPPD",0),hbm)
cfgs=json.load(open(D+"configs.json")); res=json.load(open(D+"dramsim3_results.json"))
for r in res:
    t=load(r["cfg"],cfgs[r["cfg"]])
    z=np.load(D+f"{r['trace']}_{r['req_bytes']}.npz")
    a=(t,Arbitration(),z["address"],z["is_write"],z["earliest_cycle"])
    replay(*(a if r is res[0] else a)) if r is res[0] else 0
    c0=time.process_time(); x=replay(*a); c1=time.process_time()-c0
    rd=~z["is_write"]; lat=(x.done-x.accepted)[rd]
    f=lambda m,ref: f"{m:>10} {ref:>10} {100*(m-ref)/max(ref,1e-9):6.2f}% |"
    print(f"{r['cfg']:18}{r['trace']:15}", f(x.cycles,r["cycles"]), f(round(lat.mean(),2),r["avg_rd_lat_cyc"]), f(round(x.row_hit_rate,4),r["row_hit_rate"]), f(x.activates,r["acts"]), x.refreshes,r["refs"], lat.min(),r["min"],int(np.median(lat)),r["p50"],int(np.percentile(lat,99)),r["p99"],lat.max(),r["max"], f"{len(lat)/c1/1e6:.1f}M/s" if 0 else f"{len(z['address'])/c1/1e6:.2f}M/s")
