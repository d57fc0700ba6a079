"""Seeing why: heat maps of what a model looks at, what its channels know, and what goes wrong. Numbers, no drawing.

| question                                         | function                    | of models                          |
|--------------------------------------------------|-----------------------------|------------------------------------|
| what in the images speaks for the foreground?    | `maps.grad_cam`             | all                                |
| what in an image switches one channel on?        | `maps.channel_cam`          | ca, fca, csa                       |
| where does a model look by itself?               | `maps.spatial_maps`         | csa, ssnm, multiclass              |
| what does one position find in the partner?      | `model.match`, no part here | dcnet, pfcc, multiclass            |
| which channels matter, in every image of groups? | `channels.channel_table`    | ca, fca, csa (alpha), ssnm (gamma) |
| do they tell classes apart, and which of them?   | `channels.separation`       | any vectors                        |
| did training hold a group's class?               | `seen`                      | with a card                        |
| which masks fail, and how?                       | `failures`                  | all                                |
| what goes with a low J?                          | `photographs`, `gaps`       | any table of J                     |
| what does a loss say of a mistake?               | `loss_shapes`               | any loss                           |

Models are to be in evaluation mode. Images are float (N, 3, H, W) in [0, 1], H and W multiples of 32, as
`resize_to_input` makes them.
"""
