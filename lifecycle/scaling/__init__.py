"""What the scaler is made of. Pure: records in, records out.

`demand` (who comes) and `promise` (how many free slots that takes) and `risk` (what may be risked now) make a `need`;
`capacity` is what is there; `memory` is what is kept from one decision to the next. `lifecycle/scaler.py` decides.
"""
